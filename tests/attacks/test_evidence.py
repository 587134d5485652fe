"""No changed evidence is accepted: a sample of the campaign in tests/attacks/evidence.py, with and without a TPM."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import evidence
from tests.attacks.evidence import Attacker, attacker_of, campaign
from tests.pipeline.forge import Machine
from tests.pipeline.forge_tpm import TpmMachine

pytestmark = [pytest.mark.t0, pytest.mark.slow]
SAMPLE = 1500


@pytest.mark.parametrize("machine", [Machine, TpmMachine])
def test_no_changed_evidence_is_accepted(
    machine: type[Machine], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every kind of change takes part; the good bundle is accepted."""
    attacker = attacker_of(machine(), tmp_path)
    assert attacker.is_accepted(evidence.pack(attacker.items))
    tried, accepted = campaign(attacker, 0, SAMPLE)
    with capsys.disabled():
        print(f"\n{sum(tried.values())} changed bundles ({machine.__name__}): accepted {len(accepted)}")
    assert set(tried) == set(attacker.kinds)
    assert accepted == []


def test_padding_of_a_signature_is_refused(tmp_path: Path) -> None:
    """Seed 31751 said that a signature's last byte may have padding, which the certificate parser takes."""
    attacker = attacker_of(TpmMachine(), tmp_path)
    made = attacker.change(31751)
    assert made is not None
    assert not attacker.is_accepted(made[1])


def test_an_attack_that_works_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one check taken out of the verifier, the campaign finds it."""
    attacker: Attacker = attacker_of(TpmMachine(), tmp_path)
    monkeypatch.setattr("pipeline.tpm.SigningKey.verify", lambda *_: True)
    _, accepted = campaign(attacker, 0, 400)
    assert accepted

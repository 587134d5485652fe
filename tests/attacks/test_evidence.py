"""No changed evidence is accepted: a sample of the campaign in tests/attacks/evidence.py, with and without a TPM."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import evidence
from tests.attacks.evidence import CERTIFICATES, Attacker, attacker_of, campaign
from tests.pipeline.forge import Machine
from tests.pipeline.forge_tpm import TpmMachine

pytestmark = [pytest.mark.t0, pytest.mark.slow]
SAMPLE = 1500
STRIDE = 37


@pytest.mark.parametrize("machine", [Machine, TpmMachine])
def test_no_changed_evidence_is_accepted(
    machine: type[Machine], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every kind of change takes part; the good bundle is accepted."""
    attacker = attacker_of(machine(), tmp_path)
    assert attacker.is_accepted(evidence.pack(attacker.items))
    total = campaign(attacker, 0, SAMPLE, STRIDE)
    with capsys.disabled():
        print(f"\n{machine.__name__}: {total.line()}")
    assert set(total.tried) == {*attacker.kinds, f"every {STRIDE}th byte"}
    assert total.accepted == []


def test_padding_of_a_signature_is_refused(tmp_path: Path) -> None:
    """A signature's bit string may have no padding; the certificate parser would take any."""
    attacker = attacker_of(TpmMachine(), tmp_path)
    for place in [at for at, item in enumerate(attacker.items) if item.kind in CERTIFICATES]:
        data = bytearray(attacker.items[place].data)
        assert data[-65] == 0
        for data[-65] in range(1, 8):
            assert not attacker.is_accepted(evidence.pack(attacker.replaced(place, bytes(data))))


def test_an_attack_that_works_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one check taken out of the verifier, the campaign finds it."""
    attacker: Attacker = attacker_of(TpmMachine(), tmp_path)
    monkeypatch.setattr("pipeline.tpm.SigningKey.verify", lambda *_: True)
    assert campaign(attacker, 0, 400).accepted

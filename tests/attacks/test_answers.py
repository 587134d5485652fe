"""Answers of a TPM changed on the way: a sample of the campaign in tests/attacks/answers.py. No hang, no fault, no secret released."""

from __future__ import annotations

import pytest

from tests import needs
from tests.attacks.answers import Subject, campaign, subject_in
from tests.attacks.changes import KINDS
from tests.boot.tpm_world import World

pytestmark = [pytest.mark.t1, pytest.mark.slow, needs.skip_without(needs.tpm)]
SAMPLE = 250


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return subject_in(tmp_path_factory.mktemp("answers"))


def test_no_hang_no_fault_no_secret(subject: Subject, capsys: pytest.CaptureFixture[str]) -> None:
    """Each boot ends, without a failed check; where it does not get the secret, no byte of memory holds it, and no line ever does."""
    total = campaign(subject, 0, SAMPLE, 1, quiet=True)
    with capsys.disabled():
        print(f"\n{total.line()}")
    assert total.wrong == {}
    assert set(total.changes) == set(KINDS)
    assert {"READY", "BROKEN", "WITHHELD"} <= set(total.ends)


def test_a_secret_that_stays_is_seen(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the secret put where a boot without it ends, the campaign finds it; and a boot that does not end."""
    good = World.boot

    def leaving(world: World) -> object:
        state = good(world)
        world.machine.engine.mem_write(0x4000_5000, subject.secret)
        return state

    monkeypatch.setattr(World, "boot", leaving)
    total = campaign(subject, 0, 5, 1, quiet=True)
    assert len(total.wrong) == total.boots
    assert all("secret released" in words for words in total.wrong.values())
    monkeypatch.setattr(World, "boot", good)
    monkeypatch.setattr("tests.boot.tpm_world.LIMIT", 1000)
    total = campaign(subject, 0, 5, 1, quiet=True)
    assert len(total.wrong) == total.boots
    assert all("hang or fault" in words for words in total.wrong.values())
    capsys.readouterr()  # each of them was named

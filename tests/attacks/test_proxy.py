"""Whole boots with a TPM whose answers are changed on the way: each ends, without a fault, and without a wrong acceptance."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from pipeline import chain, provision, qemu
from pipeline.console import MONITOR
from pipeline.errors import PipelineError
from pipeline.qemu import Qemu, QemuMachine
from pipeline.run import EVIDENCE, Terminal, checked_bundle
from pipeline.verify import verify_monitor
from tests import needs
from tests.attacks.proxy import Proxy
from tests.attacks.test_memory import SECRET
from tests.system.test_measured_boot import Bench, Booted

pytestmark = needs.whole_machines(needs.firmware, needs.tpm)
BOOTS = int(os.environ.get("TERRANE_PROXY_BOOTS", "8"))
SECONDS = (
    240.0  # the loader's time-outs may add up: 2 s for each answer that never comes, until the TPM counts as broken
)
RATE = 0.15  # of the answers to the loader, of which a boot has about forty


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, Path]:
    """A provisioned and approved machine with a known secret, and its image."""
    folder = tmp_path_factory.mktemp("proxy")
    made = Bench(folder, "bios", "tis")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provision, "new_secret", lambda _: SECRET)
        path, expected = made.build()
        first = made.boot(path)
        made.provision()
    made.approve(first, expected)
    path, _ = made.build()
    return made, path


def boot(bench: Bench, path: Path, seed: int, rate: float, folder: Path) -> tuple[str, bytes, Counter[str]]:
    """Boot through a proxy: what was said to the end, the evidence, and what the proxy changed. Raises EmulatorError for a hang."""
    real = qemu.arguments

    def interposed(machine: QemuMachine, place: Path) -> list[str]:
        return [
            word.replace(str(bench.folder / "tpm" / "control"), str(folder / "line")) for word in real(machine, place)
        ]

    terminal = Terminal(show=False)
    machine = QemuMachine(path, firmware=bench.firmware, tpm=bench.interface, tpm_state=bench.folder / "tpm")
    with (
        pytest.MonkeyPatch.context() as patch,
        Proxy(folder / "line", bench.folder / "tpm" / "control", seed, rate) as proxy,
    ):
        patch.setattr(qemu, "arguments", interposed)
        with Qemu(machine, terminal.take) as emulator:
            said = terminal.transcript.said

            def ended() -> bool:
                return EVIDENCE.search(said(MONITOR)) is not None or "\nstopped" in said(MONITOR)

            emulator.wait_for(ended, "evidence or a refusal", SECONDS)
        words = said(MONITOR)
    return words, checked_bundle(words) if EVIDENCE.search(words) else b"", proxy.changed


def test_without_a_change_the_proxy_changes_nothing(bench: tuple[Bench, Path], tmp_path: Path) -> None:
    """The control: through the proxy, a good boot is a good boot."""
    machine, path = bench
    _, expected = machine.build()
    words, bundle, changed = boot(machine, path, 0, 0.0, tmp_path)
    assert not changed
    assert "the device secret was read" in words
    assert verify_monitor(machine.complete(Booted(words, bundle), path), expected).tpm is not None


def test_no_hang_no_fault_no_secret(
    bench: tuple[Bench, Path], tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each boot ends in time; no exception; what is accepted is the certified device; the secret is on no line."""
    machine, path = bench
    _, expected = machine.build()
    changes: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    for seed in range(1, BOOTS + 1):
        words, bundle, changed = boot(machine, path, seed, RATE, tmp_path_factory.mktemp("line"))
        changes += changed
        assert "exception" not in words, words
        assert SECRET.hex() not in words
        try:
            verify_monitor(machine.complete(Booted(words, bundle), path), expected)
            ends["verified"] += 1  # what was changed did not matter: a delay, or an answer that is not looked at
            assert chain.key_of(SECRET).public_key().public_bytes_raw() in bundle
        except PipelineError:
            ends["refused by the loader" if not bundle else "refused by the verifier"] += 1
    total = f"{sum(changes.values())} answers changed in {BOOTS} boots {dict(changes)}"
    with capsys.disabled():
        print(f"\n{total}: hangs 0, faults 0, secrets released 0; {dict(ends)}")
    assert sum(changes.values()) >= BOOTS

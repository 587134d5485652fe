"""The self-test image says what a machine has: on machines whose parts are known."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import assemble, bochs, qemu
from pipeline.bochs import Bochs, Machine
from pipeline.console import MONITOR
from pipeline.errors import UsageError
from pipeline.qemu import UEFI, Qemu, QemuMachine
from pipeline.run import Terminal
from pipeline.selftest import LAST_WORDS

pytestmark = pytest.mark.slow
SECONDS = 240.0


def missing(check: object, *values: str) -> str:
    """Why this host cannot run an emulator; empty if it can."""
    try:
        check(*values)  # type: ignore[operator]
    except UsageError as error:
        return str(error)
    return ""


NO_QEMU, NO_BOCHS = missing(qemu.check_installed, UEFI), missing(bochs.check_installed)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image, as `build --selftest` makes it."""
    folder = tmp_path_factory.mktemp("selftest")
    assemble.write(assemble.build(assemble.Choices((), 256 << 20, selftest=True)), folder, "selftest")
    return folder / "selftest.img"


def lines(emulator: Bochs | Qemu, terminal: Terminal) -> list[str]:
    """What the self-test says."""
    emulator.wait_for(lambda: terminal.transcript.said(MONITOR).endswith(LAST_WORDS), "the last line", SECONDS)
    prefix = "selftest: "
    said = terminal.transcript.said(MONITOR).splitlines()
    return [line.removeprefix(prefix) for line in said if line.startswith(prefix)]


@pytest.mark.t2
@pytest.mark.skipif(bool(NO_BOCHS), reason=NO_BOCHS or "nothing is missing")
@pytest.mark.parametrize(("cpu", "can"), [("corei7_skylake_x", True), ("ryzen", False)])
def test_a_machine_with_and_without_vtx(image: Path, cpu: str, can: bool) -> None:
    """The line that matters is the last."""
    terminal = Terminal(show=False)
    with Bochs(Machine(image, cpu=cpu), terminal.take) as emulator:
        said = lines(emulator, terminal)
    assert said[-1] == ("this machine can run boxes" if can else "this machine cannot run boxes")
    assert ("VT-x yes" in said) == can
    assert ("unrestricted guest yes" in said) == can
    assert {"TPM no", "IOMMU no", "framebuffer no"} <= set(said)


@pytest.mark.t3
@pytest.mark.skipif(bool(NO_QEMU), reason=NO_QEMU or "nothing is missing")
def test_a_machine_with_everything_but_vtx(image: Path, tmp_path: Path) -> None:
    """TPM, IOMMU, framebuffer, and a processor of 2 features on and one off."""
    terminal = Terminal(show=False)
    more = ("-device", "intel-iommu")
    machine = QemuMachine(image, firmware=UEFI, tpm="crb", tpm_state=tmp_path / "tpm", more=more)
    with Qemu(machine, terminal.take) as emulator:
        said = lines(emulator, terminal)
    assert {"VT-x no", "AES-NI yes", "IOMMU yes, VT-d (ACPI table DMAR)", "TPM found, not provisioned"} <= set(said)
    assert any(line.startswith("framebuffer 1280 x 800 at ") for line in said)
    assert said[-1] == "this machine cannot run boxes"

"""The self-test image: a monitor that says what a machine has, and runs no box (vmm/selftest.py)."""

from __future__ import annotations

from pipeline import paths
from pipeline.bochs import Machine
from pipeline.console import MONITOR
from pipeline.errors import OK
from pipeline.progress import say
from pipeline.qemu import QemuMachine
from pipeline.run import Terminal

IMAGE = paths.OUT / "selftest.img"
LAST_WORDS = "run boxes"  # this machine can, or cannot


def run(machine: Machine | QemuMachine, seconds: float) -> int:
    """Boot it and show what it says, to its last line. Raises PipelineError where that does not come."""
    terminal = Terminal(show=True)
    say(f"Booting {machine.image.name} in {machine.title}")
    with machine.emulator(terminal.take) as emulator:
        said = terminal.transcript.said
        emulator.wait_for(lambda: said(MONITOR).endswith(LAST_WORDS), "the self-test's last line", seconds)
        terminal.settle()
    return OK

"""The self-test image: a monitor that says what a machine has, and runs no box (vmm/selftest.py)."""

from __future__ import annotations

from pathlib import Path

from pipeline import paths
from pipeline.bochs import Bochs, Machine
from pipeline.console import MONITOR
from pipeline.errors import OK
from pipeline.progress import say
from pipeline.qemu import Qemu, QemuMachine
from pipeline.run import Terminal

IMAGE = paths.OUT / "selftest.img"
LAST_WORDS = "run boxes"  # this machine can, or cannot


def run(machine: Machine | QemuMachine, seconds: float) -> int:
    """Boot it and show what it says, to its last line. Raises PipelineError where that does not come."""
    terminal = Terminal(show=True)
    say(f"Booting {Path(machine.image).name}")
    emulator = Qemu(machine, terminal.take) if isinstance(machine, QemuMachine) else Bochs(machine, terminal.take)
    with emulator:
        said = terminal.transcript.said
        emulator.wait_for(lambda: said(MONITOR).endswith(LAST_WORDS), "the self-test's last line", seconds)
        terminal.settle()
    return OK

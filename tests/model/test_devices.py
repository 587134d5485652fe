"""The devices behind I/O exits, in the emitted monitor: a guest runs the port scripts and gets the reference PC's answers."""

from __future__ import annotations

from datetime import datetime

import pytest

from dsl.hw import vmx
from tests.devices.record import NO_INTERRUPT, START
from tests.devices.scripts import SCRIPTS, Step
from tests.devices.test_traces import compared, recorded
from tests.model import board
from tests.model.processor import TSC_HZ
from tests.model.start import machine_for
from tests.model.vmx_operation import Exit, Guest, Script
from tests.vmm.images import TestBox
from vmm.descriptor import StartMode

pytestmark = pytest.mark.t1
REASON = vmx.ExitReason
IF = 1 << 9
WINDOW = 1 << 2  # of the primary controls
STEP_TICKS = 40  # between two steps; the reference needs about that long
LONG = TestBox("a", b"\xf4", StartMode.LONG)


def access(step: Step) -> Exit:
    """The exit of a step that is an IN or OUT. Interrupts are off."""
    kind, port, *rest = step
    is_in = kind.startswith("in")
    width = 4 if kind.endswith("4") else 1
    value = 0xAAAA_AAAA_0000_0000 | (0 if is_in else rest[0])
    qualification = width - 1 | is_in << 3 | port << 16
    fields = {vmx.GUEST_RFLAGS: 2, vmx.GUEST_INTERRUPTIBILITY: 0}
    return Exit(REASON.IO_INSTRUCTION, qualification, 2, registers={"rax": value}, fields=fields, ticks=STEP_TICKS)


def run_against(steps: list[Step], expected: list[int | None]) -> None:
    """Run a script, each step an exit; the monitor's devices must answer as expected, but for a step's mask."""
    done: list[Step] = []

    def script(guest: Guest) -> Script:
        for step, answer in zip(steps, expected, strict=True):
            found: int | None = None
            if step[0] == "wait":
                yield Exit(REASON.INVD, length=2, ticks=step[1] * TSC_HZ // 1_000_000)
            elif step[0] == "inta":
                asks = bool(guest[vmx.PRIMARY_CONTROLS] & WINDOW)
                yield Exit(
                    REASON.INTERRUPT_WINDOW if asks else REASON.INVD, length=2, fields={vmx.GUEST_RFLAGS: IF | 2}
                )
                assert bool(guest.event) == asks, "an interrupt that waits asks for its window, and nothing else does"
                found = guest.event & 0xFF if guest.event else NO_INTERRUPT
                guest.vmcs[vmx.GUEST_RFLAGS] = 2  # the guest's handler, or CLI
            else:
                yield access(step)
                assert guest.event == 0
                if step[0].startswith("in"):
                    found = guest["rax"] & (0xFFFF_FFFF if step[0].endswith("4") else 0xFF)
            done.append(step)
            assert compared(step, found) == compared(step, answer), (len(done), step)

    machine = machine_for([LONG], [script])
    machine.run()
    assert not machine.exceptions, machine.serial_text()
    assert done == steps


@pytest.mark.parametrize("name", SCRIPTS)
def test_answers_are_those_of_the_reference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer of a script equals the recorded one, with the real clock where the reference's stood."""
    started = datetime.fromisoformat(START)
    numbers = {
        0: started.second,
        2: started.minute,
        4: started.hour,
        7: started.day,
        8: started.month,
        9: started.year % 100,
    }
    decimal = {register: number // 10 << 4 | number % 10 for register, number in numbers.items()}
    monkeypatch.setattr(board, "RTC", board.RTC | decimal)
    run_against(SCRIPTS[name], [answer for _, answer in recorded(name)])

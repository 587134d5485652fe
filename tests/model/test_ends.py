"""How boxes end: what is said of each, that another runs on, and that all functions keep to the calling convention (calls.py)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import pytest

from dsl.hw import vmx
from tests.model import vmx_operation
from tests.model.calls import Calls
from tests.model.entry_checks import check_controls
from tests.model.processor import Processor
from tests.model.random_source import HAS_ERROR, MEMORY, VALID, Source
from tests.model.start import machine_for
from tests.model.vmcs import Vmcs
from tests.model.vmx_operation import Exit, Guest, Script
from tests.vmm.images import TestBox
from vmm.descriptor import StartMode

pytestmark = pytest.mark.t1
REASON: Final = vmx.ExitReason
FAILED: Final = 1 << 31  # of an exit reason: the entry failed
OFF: Final = {vmx.GUEST_RFLAGS: 2, vmx.GUEST_INTERRUPTIBILITY: 0, vmx.GUEST_PENDING_DEBUG_EXCEPTIONS: 0}
INVALID_FIELDS: Final = 7  # the number of a refused entry (SDM Vol. 3C, 31.4)


def control(number: int, access: int) -> Exit:
    """An access to a control register."""
    return Exit(REASON.CONTROL_REGISTER_ACCESS, number | access << 4 | 0xF << 8, 3)


def exception(vector: int, kind: int = 3) -> Exit:
    """An exit for an exception, or what has its form."""
    return Exit(REASON.EXCEPTION_OR_NMI, interruption=VALID | kind << 8 | vector)


def out(port: int, value: int) -> Exit:
    """OUT of a byte."""
    return Exit(REASON.IO_INSTRUCTION, port << 16, 2, registers={"rax": value})


ENDS: Final = {
    "triple fault": ("triple fault", 2, Exit(REASON.TRIPLE_FAULT)),
    "task switch": ("task switch", 9, Exit(REASON.TASK_SWITCH, 0x4000_0028)),
    "HLT": ("halted with interrupts off", 12, Exit(REASON.HLT, length=1, fields=OFF)),
    "reset by the keyboard": ("it asked for a reset", 30, out(0x64, 0xFE)),
    "reset by PCI": ("it asked for a reset", 30, out(0xCF9, 0x06)),
    "delivery": (
        "no memory to deliver an event", 48, Exit(REASON.EPT_VIOLATION, 0x182, vectoring=VALID | 3 << 8 | HAS_ERROR | 13),
    ),
    "delivery of vector 0": ("no memory to deliver an event", 48, Exit(REASON.EPT_VIOLATION, 0x181, vectoring=VALID)),
    **{f"entry {reason}": ("entry refused", reason, Exit(FAILED | reason)) for reason in (33, 34, 41)},
    **{
        f"control register {number}, access {access}": ("unknown exit", 28, control(number, access))
        for number, access in ((0, 1), (0, 2), (3, 0), (4, 1), (4, 2), (12, 0))
    },
    **{f"exception {vector}": ("unknown exit", 0, exception(vector)) for vector in (0, 2, 6, 14)},
    "interrupt as an exception": ("unknown exit", 0, exception(2, 0)),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_an_end_is_told_and_another_box_runs_on(name: str) -> None:
    """Reason, number and dump are right, after exits of other kinds that leave the box running."""
    said, reason, end = ENDS[name]
    source = Source(name)
    registers = source.registers()

    def ending(guest: Guest) -> Script:
        Calls(guest.machine)
        yield exception(2, 2)
        yield Exit(REASON.RDPMC, length=2)
        yield Exit(REASON.IO_INSTRUCTION, 0x3F8 << 16 | 0x10, 2)
        yield Exit(REASON.INVD, length=2, registers=registers)
        yield end
        raise AssertionError("it ran again")

    lived: list[int] = []

    def other(guest: Guest) -> Script:
        for number in range(4):
            yield Exit(REASON.PREEMPTION_TIMER, ticks=3_000_000)
            lived.append(number)

    boxes = [TestBox("ending", b"\xf4", StartMode.LONG, MEMORY), TestBox("other", b"\xf4\xf4")]
    machine = machine_for(boxes, [ending, other])
    machine.run()
    assert not machine.exceptions, machine.serial_text()
    text = machine.serial_text()
    assert f"box ending stopped: {said} (exit reason {reason}, after" in text
    dump = dict(re.findall(r"(\w+) (0x[0-9a-f]{16})", text.split("box ending stopped")[1].split("box other")[0]))
    shown = {
        name: f"{registers[name] if name not in end.registers else end.registers[name]:#018x}"
        for name in ("rbx", "rax", "r8")
    }
    assert {name: dump[name] for name in shown} == shown
    assert int(dump["reason"], 16) & 0xFFFF == reason
    assert lived == list(range(4))


@pytest.mark.parametrize("entries", [0, 1, 5])
def test_an_entry_that_is_refused_ends_the_box(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """VMLAUNCH or VMRESUME fails: the instruction's error is told, and the guest's registers are those that it had."""
    made: list[Vmcs] = []

    def refuse(vmcs: Vmcs, processor: Processor) -> Iterator[str]:
        made.append(vmcs)
        if len(made) == entries + 1:
            yield "planted"
        yield from check_controls(vmcs, processor)

    registers = Source("refused").registers()

    def refused(guest: Guest) -> Script:
        Calls(guest.machine)
        for _ in range(entries):
            yield Exit(REASON.INVD, length=2, registers=registers)
        raise AssertionError("it ran again")

    def other(guest: Guest) -> Script:
        yield Exit(REASON.INVD, length=2)

    monkeypatch.setattr(vmx_operation, "check_controls", refuse)
    machine = machine_for(
        [TestBox("refused", b"\xf4"), TestBox("other", b"\xf4\xf4")], [refused, other][entries == 0 :]
    )
    machine.expects_violation = True
    machine.run()
    text = machine.serial_text()
    assert not machine.exceptions, text
    assert f"box refused stopped: entry refused (exit reason {INVALID_FIELDS}, after {entries} exits)" in text
    assert not entries or f" rax {registers['rax']:#018x} rbx {registers['rbx']:#018x}" in text
    assert "box other stopped: triple fault" in text

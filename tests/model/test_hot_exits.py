"""The exits that go straight back to the guest: right answers, and no slice longer than it should be."""

from __future__ import annotations

import pytest

from dsl.hw import vmx
from tests.model.processor import TIMER_SHIFT, Processor
from tests.model.start import machine_for
from tests.model.vmx_operation import Exit, Guest, Script
from tests.vmm.images import TestBox

pytestmark = pytest.mark.t1
BOX = TestBox("a", b"\xf4")
FLOOD = 200  # exits; more than three times those after which the preemption timer is set anew


def test_a_flood_of_hot_exits_cannot_stretch_its_slice() -> None:
    """The timer is set anew every few exits, and left alone by the others (the model refuses an entry after too many of those)."""
    settings: list[bool] = []

    def script(guest: Guest) -> Script:
        for _ in range(FLOOD):
            yield Exit(vmx.ExitReason.CPUID, length=2, registers={"rax": 0, "rcx": 0})
            settings.append(machine.unset_entries == 0)

    machine = machine_for([BOX], [script], Processor())
    machine.run()
    assert len(settings) == FLOOD
    assert FLOOD // 64 <= sum(settings) <= FLOOD // 16


def test_a_deadline_that_passes_in_hot_exits_is_noticed() -> None:
    """Exits that each come before the timer does cannot hold the deadline off: at the next look the run loop sets the timer anew."""
    found = []

    def script(guest: Guest) -> Script:
        for _ in range(FLOOD):
            yield Exit(
                vmx.ExitReason.CPUID,
                length=2,
                ticks=guest[vmx.PREEMPTION_TIMER_VALUE] << TIMER_SHIFT - 1,
                registers={"rax": 0},
            )
            found.append(guest.machine.unset_entries)

    machine_for([BOX], [script], Processor()).run()
    assert len(found) == FLOOD
    assert max(found) < 64


def test_version_is_answered_the_hot_way_and_others_are_not() -> None:
    """VMCALL with 0 in rax: status OK and the version in rdi; an unknown number gets its status from the slow path, and rdi stays.

    The slow path sets the preemption timer anew before it enters again.
    """
    answers: list[tuple[int, int, int]] = []

    def script(guest: Guest) -> Script:
        for number in (0, 99):
            yield Exit(vmx.ExitReason.VMCALL, length=3, registers={"rax": number, "rdi": 77})
            answers.append((guest["rax"], guest["rdi"], guest.machine.unset_entries))

    machine_for([BOX], [script], Processor()).run()
    assert answers == [(0, 1, 1), (1, 77, 0)]


def test_bytes_to_ports_that_nobody_has_change_nothing_and_words_that_begin_there_do() -> None:
    """A word to 6Fh chooses the clock's register by its upper byte, to 70h; a byte to 6Fh or 80h chooses none, and 70h itself does."""
    statuses: list[int] = []

    def script(guest: Guest) -> Script:
        def out(port: int, value: int, width: int = 1) -> Exit:
            return Exit(vmx.ExitReason.IO_INSTRUCTION, width - 1 | port << 16, 2, registers={"rax": value})

        for change in (out(0x70, 0x0B), out(0x6F, 0x0D0D, 2), out(0x6F, 0x0B), out(0x80, 0x0B), out(0x70, 0x0B)):
            yield change
            yield Exit(vmx.ExitReason.IO_INSTRUCTION, 1 << 3 | 0x71 << 16, 2, registers={"rax": 0})
            statuses.append(guest["rax"])

    machine_for([BOX], [script], Processor()).run()
    register_b, valid = 0x02, 0x80
    assert statuses == [register_b, valid, valid, valid, register_b]

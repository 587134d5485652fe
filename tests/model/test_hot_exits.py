"""The exits that go straight back to the guest: right answers, and no slice longer than it should be."""

from __future__ import annotations

import pytest

from dsl.hw import vmx
from tests.model.processor import Processor
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

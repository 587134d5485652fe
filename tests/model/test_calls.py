"""Every function of the emitted monitor gives its caller back the registers and the stack that the calling convention promises."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dsl.hw import vmx
from tests.devices.scripts import SCRIPTS
from tests.model.calls import Calls
from tests.model.start import machine_for
from tests.model.test_devices import access
from tests.model.test_hypercalls import Tally, hypercall_script
from tests.model.vmx_operation import Exit, Guest, Script
from tests.vmm.images import TestBox
from vmm.descriptor import StartMode

pytestmark = pytest.mark.t1
REASON = vmx.ExitReason


def exits(guest: Guest) -> Script:
    """Exits of every reason that a box survives, each in the ways that its handler tells apart."""
    long_mode = {vmx.GUEST_RFLAGS: 0x202, vmx.GUEST_INTERRUPTIBILITY: 0}
    for number in (0, 4, 8):
        for kind in (0, 1) if number == 8 else (0,):
            for value in (0x8000_0033, 9, 1 << 40):
                yield Exit(
                    REASON.CONTROL_REGISTER_ACCESS, number | kind << 4, 3, registers={"rax": value}, fields=long_mode
                )
    for msr in (0x10, 0x17, 0x8B, 0xC000_0080, 0x3A):
        for reason in (REASON.RDMSR, REASON.WRMSR):
            for value in (0x501, 0):
                yield Exit(reason, length=2, registers={"rcx": msr, "rax": value, "rdx": 0}, fields=long_mode)
    for value in (1, 7, 2):
        yield Exit(REASON.XSETBV, length=3, registers={"rcx": 0, "rax": value, "rdx": 0}, fields=long_mode)
    for reason in (REASON.INVD, REASON.WBINVD_OR_WBNOINVD, REASON.RDPMC, REASON.GETSEC, REASON.RDRAND, REASON.CPUID):
        yield Exit(
            reason, length=2, registers={"rax": 0xD, "rcx": 1}, fields=long_mode | {vmx.GUEST_INTERRUPTIBILITY: 1}
        )
    for vector in (1, 17, 0xE):
        for shadow in (0, 1):
            fields = long_mode | {vmx.GUEST_INTERRUPTIBILITY: shadow, vmx.GUEST_RFLAGS: 0x302}
            if vector != 0xE:
                yield Exit(
                    REASON.EXCEPTION_OR_NMI, interruption=0x8000_0300 | vector | (vector == 17) << 11, fields=fields
                )
    yield Exit(REASON.INVD, length=2, vectoring=0x8000_0B0D, vectoring_error=5, fields=long_mode)
    yield Exit(REASON.EXTERNAL_INTERRUPT, interruption=0x8000_003F, fields=long_mode)


def devices(*names: str) -> Callable[[Guest], Script]:
    """A guest that talks to its devices by these port scripts."""

    def script(guest: Guest) -> Script:
        running = {vmx.GUEST_RFLAGS: 0x202, vmx.GUEST_INTERRUPTIBILITY: 0}
        for name in names:
            for step in SCRIPTS[name][:120]:
                if step[0] == "wait":
                    yield Exit(REASON.PREEMPTION_TIMER, ticks=step[1] * 1000, fields=running)
                elif step[0] == "inta":
                    yield Exit(REASON.INTERRUPT_WINDOW, fields=running)
                else:
                    yield access(step)
        yield Exit(REASON.HLT, length=1, fields=running)

    return script


SCRIPTS_RUN = {
    "exits": exits,
    "hypercalls": hypercall_script(80, 5, Tally()),
    "serial port": devices("uart_receive_fifo"),
    "clock and absent ports": devices("cmos", "absent_ports"),
    "keyboard and PCI": devices("keyboard", "pci_ports"),
    "timer and interrupts": devices("pit_interrupts", "pic_priorities"),
}


@pytest.mark.parametrize("name", SCRIPTS_RUN)
def test_callers_find_their_registers(name: str) -> None:
    """Through the exits of a box's life, its start and its end among them."""
    machine = machine_for([TestBox("a", b"\xf4", StartMode.LONG)], [SCRIPTS_RUN[name]])
    calls = Calls(machine)
    machine.run()
    assert not machine.exceptions, machine.serial_text()[-500:]
    assert len(calls.seen) > 30

"""Into the guest and out of it: what the run loop believes of the VMCS, and what stands in the return predictions."""

from __future__ import annotations

from typing import Any

import pytest
from unicorn import UC_ARCH_X86, UC_HOOK_CODE, UC_MODE_64, Uc
from unicorn.x86_const import UC_X86_REG_RAX, UC_X86_REG_RDI, UC_X86_REG_RIP, UC_X86_REG_RSP

import vmm.engine
from dsl.compiler.pipeline import compile_function
from dsl.lang import Machine, address_of, offset_of, size_of, u64
from vmm.console import CONSOLE
from vmm.cpu import BOOT_CPU, ExitFrame
from vmm.engine import RUN_DEADLINE, RUN_EXIT, RUN_NOT_ENTERED, RUN_REFUSED, run
from vmm.switch import announce_mitigations, choose_mitigations
from vmm.vcpu import VirtualCpu
from vmm.vmx.entry import (
    OUTCOME_NOT_ENTERED,
    OUTCOME_NOT_LAUNCHED,
    RESTART_SIZE,
    RETURN_PREDICTIONS,
    launch_guest,
    resume_guest,
    return_to_run_loop,
)

pytestmark = pytest.mark.t1
BASE, STACK, VCPU, DONE = 0x100_0000, 0x20_0000, 0x30_0000, 0x40_0000
OUTCOMES = {  # what enter_guest says: what run says, and whether the VMCS is launched then
    RUN_EXIT: (RUN_EXIT, True),
    RUN_DEADLINE: (RUN_DEADLINE, True),
    RUN_REFUSED: (RUN_REFUSED, True),  # the box is stopped: nobody looks at it again
    OUTCOME_NOT_LAUNCHED: (RUN_NOT_ENTERED, False),
    OUTCOME_NOT_ENTERED: (RUN_NOT_ENTERED, True),  # an NMI after a hot exit: VMLAUNCH again would fail
}


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_launched_vmcs_is_resumed(model: Machine, monkeypatch: pytest.MonkeyPatch, outcome: int) -> None:
    """After each outcome of the first entry the next one uses the instruction that the VMCS takes."""
    result, is_launched = OUTCOMES[outcome]
    BOOT_CPU.self_address = address_of(BOOT_CPU)
    model.cpu.msrs[0xC000_0101] = int(address_of(BOOT_CPU).as_u64())
    monkeypatch.setattr(vmm.engine, "arm_deadline", lambda vcpu: True)
    monkeypatch.setattr(vmm.engine, "reload_descriptor_tables", lambda: None)
    monkeypatch.setattr(vmm.engine, "enter_guest", lambda vcpu, frame, launched: u64(outcome))
    vcpu = VirtualCpu()
    assert run(vcpu) == result
    assert vcpu.is_launched == is_launched


@pytest.mark.parametrize(("function", "entry"), [(resume_guest, b"\x0f\x01\xc3"), (launch_guest, b"\x0f\x01\xc2")])
def test_the_entry_is_the_last_restartable_instruction(function: Any, entry: bytes) -> None:
    """VMRESUME and VMLAUNCH begin where an NMI still sends the stub back, and nothing behind them does."""
    program = compile_function(function, base=BASE)
    (address, _, _) = program.symbols[f"vmm.vmx.entry.{function.__name__}"]
    code = program.image[address - BASE :]
    assert code[RESTART_SIZE - 1 : RESTART_SIZE + 2] == entry
    assert code[0:4] == b"\x48\x83\x7c\x24"  # the look at the flag, at the very start


@pytest.mark.parametrize("needed", [True, False])
def test_return_predictions_are_refilled(needed: bool) -> None:
    """Where the processor needs it, as many calls as its buffer is deep stand before the first return; outcome and stack survive."""
    program = compile_function(return_to_run_loop, base=BASE)
    emulator = Uc(UC_ARCH_X86, UC_MODE_64)
    emulator.mem_map(BASE, (program.memory_size + 0xFFFF) & ~0xFFFF)
    emulator.mem_write(BASE, program.image)
    for place in (STACK - 0x10000, STACK, VCPU, DONE):
        emulator.mem_map(place, 0x10000)
    frame, saved = STACK + 0x100, STACK + 0x200
    emulator.mem_write(frame + offset_of(ExitFrame, "saved_stack"), saved.to_bytes(8, "little"))
    emulator.mem_write(frame + offset_of(ExitFrame, "refills_returns"), int(needed).to_bytes(8, "little"))
    emulator.mem_write(saved + 48, DONE.to_bytes(8, "little"))
    emulator.reg_write(UC_X86_REG_RSP, frame)
    emulator.reg_write(UC_X86_REG_RDI, VCPU)
    emulator.reg_write(UC_X86_REG_RAX, 1)
    calls: list[int] = []

    def look(uc: Uc, address: int, size: int, data: object) -> None:
        if bytes(uc.mem_read(address, 1)) == b"\xe8":
            calls.append(address)

    emulator.hook_add(UC_HOOK_CODE, look)
    (address, _, _) = program.symbols["vmm.vmx.entry.return_to_run_loop"]
    emulator.emu_start(address, DONE, count=1000)
    assert emulator.reg_read(UC_X86_REG_RIP) == DONE
    assert len(calls) == (RETURN_PREDICTIONS if needed else 0)
    assert emulator.reg_read(UC_X86_REG_RAX) == 1
    assert emulator.reg_read(UC_X86_REG_RSP) == saved + 56
    assert size_of(VirtualCpu) < 0x10000


@pytest.mark.parametrize(
    ("features", "capabilities", "needed"),
    [
        (0, None, True),  # says nothing of itself
        (1 << 29, 0, True),
        (1 << 29, 1 << 1, True),  # enhanced IBRS, but returns after a barrier are predicted by what came before
        (1 << 29, 1 << 1 | 1 << 24, False),
    ],
)
def test_who_needs_the_refill(model: Machine, features: int, capabilities: int | None, needed: bool) -> None:
    """All processors but those that say that they do not."""
    model.cpuid.update({(0, 0): (7, 0, 0, 0), (7, 0): (0, 0, 0, features)})
    if capabilities is not None:
        model.cpu.msrs[0x10A] = capabilities
    BOOT_CPU.self_address = address_of(BOOT_CPU)
    model.cpu.msrs[0xC000_0101] = int(address_of(BOOT_CPU).as_u64())
    choose_mitigations()
    assert (BOOT_CPU.exit_frame.refills_returns != 0) == needed


def test_what_is_executed_is_said(model: Machine) -> None:
    """The line at the start names what this processor gets, and nothing else."""
    BOOT_CPU.self_address = address_of(BOOT_CPU)
    model.cpu.msrs |= {0xC000_0101: int(address_of(BOOT_CPU).as_u64()), 0x10A: 1 << 5 | 1 << 1 | 1 << 24}
    model.cpuid.update({(0, 0): (7, 0, 0, 0), (7, 0): (0, 0, 0, 1 << 29 | 1 << 28 | 1 << 26 | 1 << 10)})
    choose_mitigations()
    announce_mitigations()
    said = bytes(int(CONSOLE.monitor.bytes[index]) for index in range(int(CONSOLE.monitor.written)))
    assert said == (
        b"monitor: against speculation: IBPB at a switch; L1D flush before entry; masked indices, no indirect branch\n"
    )

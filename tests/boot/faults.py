"""Loader bodies that go wrong on purpose."""

from __future__ import annotations

from typing import Final

from boot.exceptions import exceptions_start
from boot.output import output_start
from boot.parameters import PARAMETERS_BASE, BootParameters
from dsl.lang import HostVirtual, array_at, asm, machine, rdmsr, static_array, u8, u32, u64

STACK_SIZE: Final = 16384
STACK: Final = static_array(u8, STACK_SIZE, align=16)
FEW: Final = static_array(u8, 16)


@machine(naked=True)
def check_start() -> None:
    """A body that fails a check."""
    asm("lea rsp, [rip + {stack}]\n add rsp, {size}\n call {main}", stack=STACK, size=STACK_SIZE, main=fail_check)


@machine(naked=True)
def opcode_start() -> None:
    """A body that runs an instruction that is none."""
    asm("lea rsp, [rip + {stack}]\n add rsp, {size}\n call {start}\n ud2", stack=STACK, size=STACK_SIZE, start=begin)


@machine(naked=True)
def page_start() -> None:
    """A body that touches memory that is not mapped."""
    asm("lea rsp, [rip + {stack}]\n add rsp, {size}\n call {main}", stack=STACK, size=STACK_SIZE, main=touch_nothing)


@machine(naked=True)
def protection_start() -> None:
    """A body that reads a register that is not there."""
    asm("lea rsp, [rip + {stack}]\n add rsp, {size}\n call {main}", stack=STACK, size=STACK_SIZE, main=read_nothing)


@machine
def begin() -> None:
    """Output and exceptions, as the loader has them."""
    # Safe because stage 2 left its parameters there.
    output_start(BootParameters.at(HostVirtual(PARAMETERS_BASE)))
    exceptions_start()


@machine
def fail_check() -> None:
    """Write past the end of an array; the index is not known to the compiler."""
    begin()
    # Safe because stage 2 left its parameters there.
    FEW[u64(BootParameters.at(HostVirtual(PARAMETERS_BASE)).version) + 15] = u8(1)


@machine
def touch_nothing() -> None:
    """Read above the 4 GiB that are mapped."""
    begin()
    # Safe because the test wants the fault.
    FEW[0] = array_at(u8, HostVirtual(1 << 33), u64(1))[0]


@machine
def read_nothing() -> None:
    """Read an MSR that no processor has."""
    begin()
    FEW.store_u64(0, rdmsr(u32(0x4000_0000)))

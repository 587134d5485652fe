"""A virtual CPU: the registers of a guest that the processor does not keep for us, and what the scheduler knows of it."""

from __future__ import annotations

from enum import Enum
from typing import Final, TypeAlias

from dsl.hw import vmx
from dsl.lang import Array, HostPhysical, HostVirtual, Struct, array, u8, u16, u32, u64

NO_DEADLINE: Final = 0xFFFF_FFFF_FFFF_FFFF  # TSC value or nanoseconds that never come


Exit: TypeAlias = (
    vmx.ExitReason
)  # why a guest stopped: VMX's basic reasons are the normalised ones; another engine maps its own to them


class Resume(Enum):
    """What a handler wants done with its guest next."""

    GUEST = u8(0)  # run on
    YIELD = u8(1)  # run on, another time: the slice is given up
    HALT = u8(2)  # wait for an interrupt
    STOP = u8(3)  # never again; the handler has set the stop reason


class StopReason(Enum):
    """Why a box will not run again."""

    NONE = u32(0)
    TRIPLE_FAULT = u32(1)
    UNKNOWN_EXIT = u32(2)
    ENTRY_FAILURE = u32(3)
    RESET_REQUESTED = u32(4)
    HALTED_FOREVER = u32(5)
    DELIVERY_FAILURE = u32(6)
    TASK_SWITCH = u32(7)
    MACHINE_CHECK = u32(8)


class Registers(Struct, size=128):
    """The general registers, in the order of their encodings. RSP lives in the engine: its place here is scratch."""

    rax: u64
    rcx: u64
    rdx: u64
    rbx: u64
    rsp: u64
    rbp: u64
    rsi: u64
    rdi: u64
    r8: u64
    r9: u64
    r10: u64
    r11: u64
    r12: u64
    r13: u64
    r14: u64
    r15: u64


class SwitchState(Struct):
    """What one box leaves in the processor and the next must not find (DESIGN section 7); valid while the box is switched out."""

    xsave_area: HostVirtual  # 64-byte aligned, one page
    xcr0: u64
    cr2: u64
    cr8: u64  # virtual task priority: never in the processor
    dr0: u64
    dr1: u64
    dr2: u64
    dr3: u64
    dr6: u64
    star: u64
    lstar: u64
    cstar: u64
    fmask: u64
    kernel_gs_base: u64
    tsc_aux: u64
    spec_ctrl: u64


class PendingEvent(Struct, size=16):
    """An event that the next entry delivers, in the engine's own format; 0 for none."""

    information: u32
    deferred: u32  # an interrupt that was acknowledged, but an exception went first
    is_window_requested: u64  # not 0: an exit was asked for as soon as the guest can take an interrupt


class VirtualCpu(Struct):
    """One virtual CPU. Owned by the CPU that runs it."""

    registers: Registers
    deadline_tsc: u64  # the host's TSC value at which the guest is interrupted at the latest
    exit_count: u64
    control_block: HostPhysical  # the VMCS
    ept_pointer: u64
    tsc_offset: u64  # added to the host's TSC for the guest
    address_space: u16  # the VPID: box index + 1, never 0
    is_launched: bool
    is_halted: bool
    box_index: u32
    stop_reason: u32
    stop_detail: u32  # the exit reason or instruction error that goes with it
    pending: PendingEvent
    switch: SwitchState
    dump: Array[u64] = array(8)  # filled when the box stops: see `engine.capture_dump`

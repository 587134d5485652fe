"""The engine seam: everything that the monitor asks of the processor's virtualization. VMX is the first engine behind it.

Prepare a CPU, make a virtual CPU, run it, ask about its exit, change its state, inject events. Exits are normalised (`vmm.vcpu.Exit`);
a VMCS field never leaves vmm/vmx. Except where a function takes a VirtualCpu, it acts on the current one: that of the last `select`.
"""

from __future__ import annotations

from typing import Final

from dsl.hw.vmx import SECONDARY_ENABLE_INVPCID, SECONDARY_ENABLE_RDTSCP
from dsl.hw.x86 import CR4_MCE, CR4_VMXE, PAGE_SIZE
from dsl.lang import (
    Array,
    Failure,
    VmxStatus,
    address_of,
    array_at,
    frame_array,
    machine,
    u8,
    u16,
    u32,
    u64,
)
from dsl.lang.intrinsics import cpuid, read_cr0, read_cr4, vmxon, write_cr0, write_cr4
from vmm.cpu import CPU, reload_descriptor_tables
from vmm.memory import take_monitor_pages, to_host_virtual
from vmm.tables import IO_BITMAP, IO_BITMAP_SIZE, MSR_BITMAP, MSR_BITMAP_SIZE
from vmm.vcpu import VirtualCpu
from vmm.vmx.capability import CAPABILITY, check_capabilities
from vmm.vmx.entry import OUTCOME_ENTRY_REFUSED, OUTCOME_NOT_ENTERED, OUTCOME_NOT_LAUNCHED, enter_guest
from vmm.vmx.ept import build_tables, pointer_to
from vmm.vmx.ept import unmap_all as unmap_all
from vmm.vmx.events import (
    can_take_interrupt as can_take_interrupt,
)
from vmm.vmx.events import (
    deliver_deferred as deliver_deferred,
)
from vmm.vmx.events import (
    deliver_interrupt as deliver_interrupt,
)
from vmm.vmx.events import (
    has_event as has_event,
)
from vmm.vmx.events import (
    inject_fault as inject_fault,
)
from vmm.vmx.events import (
    inject_general_protection as inject_general_protection,
)
from vmm.vmx.events import (
    inject_invalid_opcode as inject_invalid_opcode,
)
from vmm.vmx.events import (
    interrupts_enabled as interrupts_enabled,
)
from vmm.vmx.events import (
    replace_interrupted_delivery as replace_interrupted_delivery,
)
from vmm.vmx.events import (
    take_interrupted_delivery as take_interrupted_delivery,
)
from vmm.vmx.events import (
    want_interrupt_window as want_interrupt_window,
)
from vmm.vmx.guest_state import (
    end_general_detect as end_general_detect,
)
from vmm.vmx.guest_state import (
    is_paging as is_paging,
)
from vmm.vmx.guest_state import (
    is_valid_cr0 as is_valid_cr0,
)
from vmm.vmx.guest_state import (
    read_efer as read_efer,
)
from vmm.vmx.guest_state import (
    read_register as read_register,
)
from vmm.vmx.guest_state import (
    set_tsc as set_tsc,
)
from vmm.vmx.guest_state import (
    shadow_cr0 as shadow_cr0,
)
from vmm.vmx.guest_state import (
    write_efer as write_efer,
)
from vmm.vmx.guest_state import (
    write_register as write_register,
)
from vmm.vmx.hot import (
    HOT_DEADLINE,
    HOT_EXIT,
)
from vmm.vmx.hot import (
    advance_by as advance_by,
)
from vmm.vmx.hot import (
    advance_instruction as advance_instruction,
)
from vmm.vmx.hot import (
    arm_deadline as arm_deadline,
)
from vmm.vmx.hot import (
    end_interrupt_shadow as end_interrupt_shadow,
)
from vmm.vmx.information import (
    capture_dump as capture_dump,
)
from vmm.vmx.information import (
    code_address as code_address,
)
from vmm.vmx.information import (
    code_size as code_size,
)
from vmm.vmx.information import (
    control_exit as control_exit,
)
from vmm.vmx.information import (
    exception_exit as exception_exit,
)
from vmm.vmx.information import (
    exit_reason as exit_reason,
)
from vmm.vmx.information import (
    interrupt_vector as interrupt_vector,
)
from vmm.vmx.information import (
    memory_exit as memory_exit,
)
from vmm.vmx.information import (
    paging as paging,
)
from vmm.vmx.information import (
    privilege_ring as privilege_ring,
)
from vmm.vmx.information import (
    refusal_number as refusal_number,
)
from vmm.vmx.io_exit import io_exit as io_exit
from vmm.vmx.vmcs import BITMAPS, create_control_block, load_control_block, prepare_region
from vmm.vmx.vmcs import Start as Start

CPUID_MACHINE_CHECK: Final = 1 << 7  # leaf 1, EDX
NO_MEMORY: Final = 1

# What `run` returns
RUN_EXIT: Final = HOT_EXIT  # an exit to handle
RUN_DEADLINE: Final = HOT_DEADLINE  # the deadline passed in a hot exit, which is handled
RUN_NOT_ENTERED: Final = OUTCOME_NOT_ENTERED
RUN_TOO_LATE: Final = 6  # the deadline had passed before the entry
RUN_REFUSED: Final = OUTCOME_ENTRY_REFUSED


@machine
def prepare_engine() -> Failure | None:
    """Check this machine and make what all boxes share. On failure a message has said what is missing."""
    capable = check_capabilities()
    if isinstance(capable, Failure):
        return capable
    pages = take_monitor_pages(u64((MSR_BITMAP_SIZE + IO_BITMAP_SIZE) // PAGE_SIZE))
    if isinstance(pages, Failure):
        return pages
    BITMAPS.msr = pages
    BITMAPS.io = pages + MSR_BITMAP_SIZE
    # Safe because the pages were just handed out for this, with these sizes.
    array_at(u8, to_host_virtual(BITMAPS.msr), u64(MSR_BITMAP_SIZE)).copy_from(MSR_BITMAP)
    array_at(u8, to_host_virtual(BITMAPS.io), u64(IO_BITMAP_SIZE)).copy_from(IO_BITMAP)
    return None


@machine
def pass_msr(number: u32, is_read: bool) -> None:
    """Let guests access an MSR directly: for rows of the allow-list that depend on the processor. Before any guest runs."""
    half = u64(0) if is_read else u64(MSR_BITMAP_SIZE // 2)
    position = u64(number & 0x1FFF) + (u64(0x2000) if number >= 0xC000_0000 else u64(0))
    # Safe because the page is the bitmap, and position is below 16384.
    bitmap = array_at(u8, to_host_virtual(BITMAPS.msr), u64(MSR_BITMAP_SIZE))
    bitmap[half + position // 8] &= ~(u8(1) << (position % 8))


@machine
def prepare_cpu() -> Failure | None:
    """Enter VMX operation on this CPU."""
    region = take_monitor_pages(u64(1))
    if isinstance(region, Failure):
        return region
    prepare_region(region)
    write_cr0((read_cr0() | CAPABILITY.cr0_fixed0) & CAPABILITY.cr0_fixed1)
    write_cr4((read_cr4() | CAPABILITY.cr4_fixed0 | CR4_VMXE | machine_check_enable()) & CAPABILITY.cr4_fixed1)
    pointer = frame_array(u64, 1)
    pointer[0] = region.as_u64()
    if vmxon(address_of(pointer)) != VmxStatus.OK:
        return Failure(NO_MEMORY)
    return None


@machine
def machine_check_enable() -> u64:
    """CR4.MCE, where there are machine checks: without it one is a silent reset, with it the monitor says so, also while a guest runs."""
    return u64(CR4_MCE) if cpuid(u32(1), u32(0)).edx & CPUID_MACHINE_CHECK != 0 else u64(0)


@machine
def has_rdtscp() -> bool:
    """Say whether guests can use RDTSCP and so IA32_TSC_AUX."""
    return CAPABILITY.secondary & SECONDARY_ENABLE_RDTSCP != 0


@machine
def has_invpcid() -> bool:
    """Say whether guests can use INVPCID."""
    return CAPABILITY.secondary & SECONDARY_ENABLE_INVPCID != 0


@machine
def create_virtual_cpu(vcpu: VirtualCpu, owner: u8, frames: Array[u64], start: Start) -> Failure | None:
    """Make a virtual CPU over these frames of memory, all owned by box `owner`; it becomes the current one."""
    root = build_tables(owner, frames)
    if isinstance(root, Failure):
        return root
    region = take_monitor_pages(u64(1))
    if isinstance(region, Failure):
        return region
    vcpu.ept_pointer = pointer_to(root)
    vcpu.address_space = u16(owner) + 1
    create_control_block(vcpu, region, start)
    return None


@machine
def select(vcpu: VirtualCpu) -> None:
    """Make a virtual CPU the current one."""
    load_control_block(vcpu)


@machine
def run(vcpu: VirtualCpu) -> u64:
    """Run the current virtual CPU until an exit that is not hot, or its deadline. Returns one of RUN_*.

    The descriptor-table limits that an exit sets to 64 KiB are set back.
    """
    frame = CPU.current().exit_frame
    if not arm_deadline(vcpu):
        return u64(RUN_TOO_LATE)
    outcome = enter_guest(vcpu, frame, vcpu.is_launched)
    reload_descriptor_tables()
    if outcome == OUTCOME_NOT_LAUNCHED:
        return u64(RUN_NOT_ENTERED)
    # Also when an NMI stopped a hot exit on its way back; a box whose entry was refused never enters again.
    vcpu.is_launched = True
    if outcome == RUN_DEADLINE:
        vcpu.pending.information = u32(0)
    return outcome

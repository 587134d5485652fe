"""Extended page tables (SDM Vol. 3C, 29.3): guest-physical 0 to the box's size in 2-MiB leaves, and nothing else.

A box's tables are one block of pages: the level-4 table, one level-3 table, and one level-2 table a GiB. Only frames that the
ownership table gives to the box get in.
"""

from __future__ import annotations

from typing import Final

from dsl.hw.vmx import INVEPT_ALL, INVVPID_ALL, EptLeaf, EptPointer, EptTableEntry
from dsl.hw.x86 import PAGE_SIZE
from dsl.lang import (
    Array,
    Failure,
    HostPhysical,
    Struct,
    VmxStatus,
    address_of,
    array,
    frame_array,
    machine,
    u8,
    u64,
    upto,
)
from dsl.lang.intrinsics import invept, invvpid
from vmm.memory import FRAMES, FrameState, take_monitor_pages, to_host_virtual
from vmm.vcpu import VirtualCpu

ENTRIES: Final = 512
WRITE_BACK: Final = 6
PAGE_SHIFT: Final = 12
FRAMES_PER_GIB: Final = 512
GIB_LIMIT: Final = 64  # of one box: as much as the ownership table covers
NOT_OWNED: Final = 5  # failure: the frame is not this box's


class EptTable(Struct, size=4096):
    """A table of either kind."""

    entries: Array[u64] = array(ENTRIES)


@machine
def table_at(physical: HostPhysical) -> EptTable:
    """A table in the monitor's own pages."""
    # Safe because only pages that take_monitor_pages gave to build_tables are passed.
    return EptTable.at(to_host_virtual(physical))


@machine
def table_entry(physical: HostPhysical) -> u64:
    """An entry that refers to a table, all accesses allowed."""
    return u64(EptTableEntry(read=True, write=True, execute=True, page_frame=physical.as_u64() >> PAGE_SHIFT).raw())


@machine
def leaf_entry(frame_number: u64) -> u64:
    """A write-back leaf for a frame."""
    leaf = EptLeaf(
        read=True, write=True, execute=True, memory_type=u8(WRITE_BACK), large=True, page_frame=frame_number << 9
    )
    return u64(leaf.raw())


@machine
def build_tables(owner: u8, frames: Array[u64]) -> HostPhysical | Failure:
    """Map guest-physical 0 and up to these frames, in order. Returns the level-4 table. Each frame must be owned by `owner` alone."""
    gib_count = (frames.length + (FRAMES_PER_GIB - 1)) // FRAMES_PER_GIB
    if gib_count > GIB_LIMIT:
        return Failure(NOT_OWNED)
    root = take_monitor_pages(gib_count + 2)
    if isinstance(root, Failure):
        return root
    level_3 = root + PAGE_SIZE
    table_at(root).entries[0] = table_entry(level_3)
    for gib in upto(gib_count):
        table_at(level_3).entries[gib] = table_entry(level_3 + (gib + 1) * PAGE_SIZE)
    for index in upto(frames.length):
        frame = FRAMES[frames[index]]
        if frame.state != FrameState.OWNED or frame.owner != owner:
            return Failure(NOT_OWNED)
        level_2 = table_at(level_3 + (index // FRAMES_PER_GIB + 1) * PAGE_SIZE)
        level_2.entries[index % FRAMES_PER_GIB] = leaf_entry(frames[index])
    return root


@machine
def pointer_to(root: HostPhysical) -> u64:
    """The EPTP of a level-4 table."""
    return u64(EptPointer(memory_type=u8(WRITE_BACK), walk_length=u8(3), page_frame=root.as_u64() >> PAGE_SHIFT).raw())


@machine
def unmap_all(vcpu: VirtualCpu) -> None:
    """Remove every mapping of a box, and every translation kept of it: its memory is out of reach when this returns."""
    root = HostPhysical(vcpu.ept_pointer & 0x000F_FFFF_FFFF_F000)
    table_at(root).entries[0] = u64(0)
    invalidate_translations()


@machine
def invalidate_translations() -> None:
    """Forget all guest translations on this CPU."""
    descriptor = frame_array(u64, 2)
    assert invept(INVEPT_ALL, address_of(descriptor)) == VmxStatus.OK, "INVEPT of all contexts works"
    assert invvpid(INVVPID_ALL, address_of(descriptor)) == VmxStatus.OK, "INVVPID of all contexts works"

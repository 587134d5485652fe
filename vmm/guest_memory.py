"""The only way to a guest's memory: bytes copied in and out, by guest-physical address, each read once, each range checked in one place."""

from __future__ import annotations

from typing import Final

from dsl.hw.x86 import PAGE_SHIFT, PAGE_SIZE
from dsl.lang import (
    Array,
    Failure,
    HostPhysical,
    HostVirtual,
    Record,
    Struct,
    Untrusted,
    array_at,
    frame_array,
    machine,
    minimum,
    rounds,
    u8,
    u64,
    untrusted,
)
from vmm.memory import FRAME_SHIFT, FRAME_SIZE, to_host_virtual

OUT_OF_MEMORY_RANGE: Final = 1  # failure: not all of the range is the box's memory
NOWHERE: Final = (
    0xFFFF_FFFF_FFFF_FFFF  # a guest-physical address that no box has: the guest's own page tables have no translation
)

PRESENT: Final = 1
LARGE_PAGE: Final = 1 << 7
ADDRESS_BITS: Final = 0x000F_FFFF_FFFF_F000


class GuestMemory(Struct):
    """A box's memory: guest-physical 0 to `size`, in 2-MiB frames that need not be neighbours."""

    frames: HostVirtual  # Array[u64] of frame numbers, `frame_count` long, in the monitor's own pages
    frame_count: u64
    size: u64  # bytes


class Paging(Record):
    """How a guest translates addresses now."""

    root: u64  # CR3
    is_on: bool
    is_long: bool  # four levels
    is_pae: bool  # three levels


@machine
def check_range(memory: GuestMemory, start: Untrusted[u64], size: u64) -> u64 | Failure:
    """The one check of a guest's range: all of it lies in the box's memory, without overflow. Returns its start. None is empty."""
    if size == 0 or size > memory.size:
        return Failure(OUT_OF_MEMORY_RANGE)
    return start.at_most(memory.size - size)


@machine
def host_bytes(memory: GuestMemory, index: u64, offset: u64, size: u64) -> Array[u8]:
    """The bytes of a checked range that lie in the box's frame of this index, from an offset there."""
    # Safe because the array holds frame_count numbers, written at start and never by a guest.
    frames = array_at(u64, memory.frames, memory.frame_count)
    frame = frames[index]
    # Safe because the frame is owned by this box, and [offset, offset + size) stays within it.
    return array_at(u8, to_host_virtual(HostPhysical((frame << FRAME_SHIFT) + offset)), size)


@machine
def copy_in(memory: GuestMemory, source: Untrusted[u64], destination: Array[u8]) -> Failure | None:
    """Copy guest-physical bytes, at most a frame's size, to the monitor, each read exactly once. On failure nothing was copied."""
    start = check_range(memory, source, destination.length)
    if isinstance(start, Failure):
        return start
    index, offset = start >> FRAME_SHIFT, start & (FRAME_SIZE - 1)
    first = minimum(FRAME_SIZE - offset, destination.length)
    rest = destination.length - first
    destination.slice(u64(0), first).copy_from(host_bytes(memory, index, offset, first))
    if rest != 0:
        destination.slice(first, rest).copy_from(host_bytes(memory, index + 1, u64(0), rest))
    return None


@machine
def copy_out(memory: GuestMemory, destination: Untrusted[u64], source: Array[u8]) -> Failure | None:
    """Copy the monitor's bytes, at most a frame's size, to guest-physical memory. On failure nothing was copied."""
    start = check_range(memory, destination, source.length)
    if isinstance(start, Failure):
        return start
    index, offset = start >> FRAME_SHIFT, start & (FRAME_SIZE - 1)
    first = minimum(FRAME_SIZE - offset, source.length)
    rest = source.length - first
    host_bytes(memory, index, offset, first).copy_from(source.slice(u64(0), first))
    if rest != 0:
        host_bytes(memory, index + 1, u64(0), rest).copy_from(source.slice(first, rest))
    return None


@machine
def read_entry(memory: GuestMemory, address: u64, size: u64) -> u64:
    """Read one entry of a guest's paging structure, 4 or 8 bytes; zero, which is not present, where it lies outside memory."""
    entry = frame_array(u8, 8)
    _ = copy_in(memory, untrusted(address), entry.slice(u64(0), size))
    return entry.load_u64(u64(0))


@machine
def translate(memory: GuestMemory, paging: Paging, linear: u64) -> u64:
    """Walk the guest's page tables for a read; permissions are not looked at, because the access was already made once.

    Returns a guest-physical address, which may lie outside memory; NOWHERE if there is no translation.
    """
    if not paging.is_on:
        return linear & 0xFFFF_FFFF
    if paging.is_long:
        return walk(memory, paging.root & ADDRESS_BITS, linear, u64(39))
    if paging.is_pae:
        pointer = read_entry(memory, (paging.root & 0xFFFF_FFE0) + ((linear >> 30) & 3) * 8, u64(8))
        if pointer & PRESENT == 0:
            return u64(NOWHERE)
        return walk(memory, pointer & ADDRESS_BITS, linear & 0xFFFF_FFFF, u64(21))
    return walk_32_bit(memory, paging.root, linear & 0xFFFF_FFFF)


@machine
def walk(memory: GuestMemory, root: u64, linear: u64, top_shift: u64) -> u64:
    """Walk tables of 512 entries from the level whose index starts at bit `top_shift` (39 or 21)."""
    table_address = root
    shift = top_shift
    for _ in rounds(4):
        entry = read_entry(memory, table_address + ((linear >> shift) & 511) * 8, u64(8))
        if entry & PRESENT == 0:
            break
        if shift == PAGE_SHIFT or (entry & LARGE_PAGE != 0 and shift != 39):
            offset_mask = (u64(1) << shift) - 1
            return (entry & ADDRESS_BITS & ~offset_mask) | (linear & offset_mask)
        table_address = entry & ADDRESS_BITS
        shift -= 9
    return u64(NOWHERE)


@machine
def walk_32_bit(memory: GuestMemory, root: u64, linear: u64) -> u64:
    """Walk the two levels of 32-bit paging; 4-MByte pages with PSE-36."""
    directory = read_entry(memory, (root & 0xFFFF_F000) + (linear >> 22) * 4, u64(4))
    if directory & PRESENT == 0:
        return u64(NOWHERE)
    if directory & LARGE_PAGE != 0:
        return (directory & 0xFFC0_0000) | ((directory & 0x001F_E000) << 19) | (linear & 0x003F_FFFF)
    leaf = read_entry(memory, (directory & 0xFFFF_F000) + ((linear >> 12) & 1023) * 4, u64(4))
    if leaf & PRESENT == 0:
        return u64(NOWHERE)
    return (leaf & 0xFFFF_F000) | (linear & (PAGE_SIZE - 1))


@machine
def fetch_code(memory: GuestMemory, paging: Paging, linear: u64, destination: Array[u8]) -> u64:
    """Fetch instruction bytes at a linear address into `destination`. Returns how many could be read: 0 to its length."""
    done = u64(0)
    for _ in rounds(2):  # an instruction lies on one page or two
        address = linear + done
        physical = translate(memory, paging, address)
        piece = minimum(PAGE_SIZE - (address & (PAGE_SIZE - 1)), destination.length - done)
        copied = copy_in(memory, untrusted(physical), destination.slice(done, piece))
        if isinstance(copied, Failure):
            return done
        done += piece
        if done == destination.length:
            break
    return done

"""Look for the witness's canaries: in every register that a box can read, and in memory.

The pattern itself must not stand in this box's memory, or it would find itself: it is kept combined with a random key.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import (
    Array,
    HostVirtual,
    Struct,
    address_of,
    array_at,
    frame_array,
    machine,
    static,
    table,
    text,
    u8,
    u32,
    u64,
    upto,
)
from dsl.lang.intrinsics import rdtsc, read_cr2, read_dr0, read_dr1, read_dr2, read_dr3
from guests.canaries import CANARY, NUMBER_MASK, XMM_COUNT, store_xmm
from guests.intruder.registers import msr_value, read_msr
from guests.intruder.report import report_canary

INVERSE: Final = ~CANARY & 0xFFFF_FFFF_FFFF_FFFF
PAGE_SIZE: Final = 4096
PAGE_WORDS: Final = 512
# STAR, LSTAR, CSTAR, FMASK, FS, GS and KERNEL_GS base, TSC_AUX, SYSENTER_CS, ESP, EIP, PAT
MSRS: Final = table(
    u32,
    [
        0xC000_0081,
        0xC000_0082,
        0xC000_0083,
        0xC000_0084,
        0xC000_0100,
        0xC000_0101,
        0xC000_0102,
        0xC000_0103,
        0x174,
        0x175,
        0x176,
        0x277,
    ],
)


class Pattern(Struct):
    """The canaries' upper bits, combined with the key."""

    key: u64
    combined: u64


PATTERN: Final = static(Pattern)


@machine
def prepare_search() -> None:
    """Choose the key."""
    PATTERN.key = rdtsc() * 0x9E37_79B9_7F4A_7C15
    PATTERN.combined = u64(INVERSE) ^ ~PATTERN.key


@machine
def is_canary(value: u64) -> bool:
    """Tell whether a word is a canary, whatever its number."""
    return ((value ^ PATTERN.key ^ PATTERN.combined) & ~u64(NUMBER_MASK)) == 0


@machine
def look_at(value: u64, where: Array[u8], place: u64) -> None:
    """Report a word if it is a canary."""
    if is_canary(value):
        report_canary(where, place)


@machine
def search_vector_registers() -> None:
    """Look at XMM0-15."""
    words = frame_array(u64, 2 * XMM_COUNT)
    store_xmm(address_of(words))
    for index in upto(words.length):
        look_at(words[index], text("XMM"), index >> 1)


@machine
def search_registers() -> None:
    """Look at every register that outlives a switch between boxes."""
    search_vector_registers()
    look_at(read_cr2(), text("CR2"), u64(0))
    look_at(read_dr0(), text("DR"), u64(0))
    look_at(read_dr1(), text("DR"), u64(1))
    look_at(read_dr2(), text("DR"), u64(2))
    look_at(read_dr3(), text("DR"), u64(3))
    for index in upto(MSRS.length):
        number = u64(MSRS[index])
        if read_msr(number):
            look_at(msr_value(), text("MSR"), number)


@machine
def search_page(page: HostVirtual, physical: u64) -> None:
    """Look at a page that is mapped at `page`, and is guest-physical `physical`."""
    # Safe because the caller has mapped the page.
    words = array_at(u64, page, u64(PAGE_WORDS))
    for index in upto(words.length):
        look_at(words[index], text("memory"), physical + index * 8)


@machine
def search_memory(size: u64) -> u64:
    """Look at the box's own memory, identity-mapped, `size` bytes; return the number of words."""
    for page in upto(size // PAGE_SIZE):
        search_page(HostVirtual(page * PAGE_SIZE), page * PAGE_SIZE)
    return size // 8

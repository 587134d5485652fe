"""Guest memory as the emitted monitor reaches it: through the guest's own page tables, and across frames that are no neighbours."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import pytest

from dsl.hw import vmx
from tests.model.start import machine_for, play
from tests.model.test_hypercalls import BAD_ADDRESS, LOG, NOT_PERMITTED, OK, VERSION, YIELD
from tests.model.test_hypercalls import RANDOM as RANDOM_BYTES
from tests.model.vmx_operation import Exit, Guest, Script
from tests.vmm.images import TestBox
from vmm.descriptor import StartMode

pytestmark = pytest.mark.t1
REASON = vmx.ExitReason
FRAME = 2 << 20
MEMORY = 6 << 20
PLAIN_READ = 0x181  # a read whose linear address is valid and was translated (SDM Vol. 3C, table 28-7)
GENERAL_PROTECTION = 13
CODE = b"\x8b\x06"  # mov eax, [rsi]
ABSENT = 0x3000_0000
CR0_PG, CR4_PSE, CR4_PAE, LMA = 1 << 31, 1 << 4, 1 << 5, 1 << 10
CR3 = 0x3_0000
P, PS = 1, 1 << 7
NOISE = 0x8000_0000_0000_0F7E  # bits of an entry that say nothing about the address


@dataclass(frozen=True)
class Walk:
    """Page tables, as (guest-physical, entry) pairs, and where they lead: physical None is no translation."""

    mode: str
    linear: int
    entries: tuple[tuple[int, int], ...]
    physical: int | None


def index(linear: int, shift: int, bits: int = 9) -> int:
    """A table's index for an address."""
    return linear >> shift & (1 << bits) - 1


def long_walk(linear: int, levels: int, physical: int | None, root: int = CR3, broken: int = 0) -> Walk:
    """Four levels, of which `levels` are walked. broken: the level (from 1) whose entry is not present."""
    tables = [root, 0x4_1000, 0x5_2000, 0x6_3000]
    entries = []
    for level in range(levels):
        shift = 39 - 9 * level
        is_leaf = level == levels - 1
        offset = (1 << shift) - 1
        target = (physical or 0) & ~offset if is_leaf else tables[level + 1]
        flags = (NOISE | P if broken != level + 1 else NOISE & ~P) & ~PS
        entries.append(
            (tables[level] + index(linear, shift) * 8, target | flags | (PS if is_leaf and levels < 4 else 0))
        )
    return Walk("long", linear, tuple(entries), physical)


def pae_walk(linear: int, levels: int, physical: int | None, root: int = CR3 + 0x60, broken: int = 0) -> Walk:
    """Three levels: four pointers at a multiple of 32, then two tables."""
    tables = [root, 0x4_1000, 0x5_2000]
    places = [index(linear, 30, 2), index(linear, 21), index(linear, 12)]
    entries = []
    for level in range(levels):
        is_leaf = level == levels - 1
        offset = 0xFFF if levels == 3 else 0x1F_FFFF
        target = (physical or 0) & ~offset if is_leaf else tables[level + 1]
        flags = (P if level == 0 else NOISE & ~PS | P) & ~(P if broken == level + 1 else 0)
        entries.append((tables[level] + places[level] * 8, target | flags | (PS if is_leaf and levels < 3 else 0)))
    return Walk("pae", linear, tuple(entries), physical)


def short_walk(linear: int, levels: int, physical: int | None, broken: int = 0, above: int = 0) -> Walk:
    """Two levels of 32-bit entries, or one with 4-MByte pages (PSE-36), which may lie above 4 GiB."""
    noise = 0xE7E & ~PS
    first = CR3 + index(linear, 22, 10) * 4
    if levels == 1:
        high = above >> 32 << 13
        entry = (physical or 0) & 0xFFC0_0000 | high | noise & 0xFFF | PS | (0 if broken else P)
        return Walk("short", linear, ((first, entry),), physical)
    second = 0x4_1000 + index(linear, 12, 10) * 4
    entries = (
        (first, 0x4_1000 | noise | (P if broken != 1 else 0)),
        (second, (physical or 0) & ~0xFFF | noise | (P if broken != 2 else 0)),
    )
    return Walk("short", linear, entries, physical)


WALKS = {
    "long 4K": long_walk(0x7F12_3456_7ABC, 4, 0x1_2ABC),
    "long 4K in another frame": long_walk(0x0000_8765_4123, 4, 0x25_5123),
    "long 2M": long_walk(0x6ABC_DEFA_BCDE, 3, 0x1A_BCDE),
    "long 2M, second frame": long_walk(0x1234_5672_0008, 3, 0x32_0008),
    "long 1G": long_walk(0x1234_4000_7008, 2, 0x7008),
    "long, nothing at level 1": long_walk(0x7F12_3456_7ABC, 4, None, broken=1),
    "long, nothing at level 2": long_walk(0x7F12_3456_7ABC, 4, None, broken=2),
    "long, nothing at level 3": long_walk(0x7F12_3456_7ABC, 4, None, broken=3),
    "long, nothing at level 4": long_walk(0x7F12_3456_7ABC, 4, None, broken=4),
    "long, a root in the second frame": long_walk(0x7F12_3456_7ABC, 4, 0x1_2ABC, root=0x23_5000),
    "pae 4K": pae_walk(0xC765_4321, 3, 0x1_3321),
    "pae 4K, first pointer": pae_walk(0x0765_4008, 3, 0x1_3008),
    "pae 2M": pae_walk(0x8765_4321, 2, 0x25_4321),
    "pae, nothing at level 1": pae_walk(0xC765_4321, 3, None, broken=1),
    "pae, nothing at level 2": pae_walk(0xC765_4321, 3, None, broken=2),
    "pae, nothing at level 3": pae_walk(0xC765_4321, 3, None, broken=3),
    "short 4K": short_walk(0xFEDC_B987, 2, 0x1_4987),
    "short 4M": short_walk(0x8015_4321, 1, 0x15_4321),
    "short, nothing at level 1": short_walk(0xFEDC_B987, 2, None, broken=1),
    "short, nothing at level 2": short_walk(0xFEDC_B987, 2, None, broken=2),
    "short 4M above 4G, which is no memory": short_walk(0x8015_4321, 1, None, above=1 << 33),
}


def paging_fields(mode: str, root: int) -> dict[object, int]:
    """The guest's state for a mode of paging."""
    fields: dict[object, int] = {vmx.GUEST_CR0: 0x8000_0031, vmx.GUEST_CR3: root, vmx.GUEST_RFLAGS: 2}
    if mode == "pae":
        fields[vmx.GUEST_CR4] = 0x2040 | CR4_PAE
    elif mode == "short":
        fields[vmx.GUEST_CR4] = 0x2040 | CR4_PSE
    return fields


@pytest.mark.parametrize("name", WALKS)
def test_an_instruction_is_found_through_the_guest_s_tables(name: str) -> None:
    """In every mode of paging and size of page; where there is no translation the guest gets #GP, and all is as it was."""
    walk = WALKS[name]
    box = TestBox("a", b"\xf4", StartMode.LONG if walk.mode == "long" else StartMode.PROTECTED, memory_size=MEMORY)
    root = walk.entries[0][0] & ~0xFFF | (0x60 if walk.mode == "pae" else 0)

    def script(guest: Guest) -> Script:
        for place, entry in walk.entries:
            guest.write(place, struct.pack("<I" if walk.mode == "short" else "<Q", entry))
        if walk.physical is not None:
            guest.write(walk.physical, CODE)
        fields = paging_fields(walk.mode, root | (0x18 if walk.mode != "pae" else 0)) | {vmx.GUEST_RIP: walk.linear}
        registers = {"rax": 0x1234_5678_9ABC_DEF0, "rsi": ABSENT}
        yield Exit(REASON.EPT_VIOLATION, PLAIN_READ, registers=registers, fields=fields, guest_physical=ABSENT)
        if walk.physical is None:
            assert guest.event & 0xFF == GENERAL_PROTECTION
            assert (guest["rax"], guest.rip) == (registers["rax"], walk.linear)
        else:
            assert (guest.event, guest["rax"], guest.rip) == (0, 0xFFFF_FFFF, walk.linear + len(CODE))

    play(script, box)


def test_an_instruction_on_two_pages() -> None:
    """Its bytes come from both, wherever each lies."""
    code = b"\x8b\x86\x78\x56\x34\x12"  # mov eax, [rsi + 0x12345678]
    first, second = long_walk(0x40_0000_0FFD, 4, 0x1_2FFD), long_walk(0x40_0000_1000, 4, 0x27_7000)

    def script(guest: Guest) -> Script:
        for place, entry in (*first.entries, *second.entries):
            guest.write(place, struct.pack("<Q", entry))
        guest.write(0x1_2FFD, code[:3])
        guest.write(0x27_7000, code[3:])
        fields = paging_fields("long", CR3) | {vmx.GUEST_RIP: first.linear}
        yield Exit(REASON.EPT_VIOLATION, PLAIN_READ, registers={"rsi": ABSENT}, fields=fields, guest_physical=ABSENT)
        assert (guest.event, guest["rax"], guest.rip) == (0, 0xFFFF_FFFF, first.linear + len(code))
        guest.write(second.entries[3][0], bytes(8))  # now the second page is not there
        yield Exit(REASON.EPT_VIOLATION, PLAIN_READ, registers={"rsi": ABSENT}, fields=fields, guest_physical=ABSENT)
        assert guest.event & 0xFF == GENERAL_PROTECTION
        guest.write(0x1_2FFD, CODE + b"\xf4")  # which an instruction that ends on the first does not need
        yield Exit(
            REASON.EPT_VIOLATION, PLAIN_READ, registers={"rsi": ABSENT, "rax": 0}, fields=fields, guest_physical=ABSENT
        )
        assert (guest.event, guest["rax"], guest.rip) == (0, 0xFFFF_FFFF, first.linear + len(CODE))

    play(script, TestBox("a", b"\xf4", StartMode.LONG, memory_size=MEMORY))


def call(number: int, first: int, size: int, ring: int = 0) -> Exit:
    """A hypercall."""
    fields = {vmx.GUEST_SS_ACCESS_RIGHTS: 0xC093 | ring << 5, vmx.GUEST_CS_ACCESS_RIGHTS: 0xA09B | ring << 5}
    return Exit(
        REASON.VMCALL, length=3, registers={"rax": number, "rdi": first, "rsi": size, "rdx": 0, "r10": 0}, fields=fields
    )


@pytest.mark.parametrize("start", [FRAME - 255, FRAME - 128, FRAME - 1, FRAME, 2 * FRAME - 3, MEMORY - 256])
def test_copies_cross_frames(start: int) -> None:
    """Exactly the bytes of the range are written, on both sides of a frame's end; text that crosses one is said whole."""
    text = bytes(0x21 + number % 90 for number in range(63)) + b"\n"
    size = 256

    def script(guest: Guest) -> Script:
        low = start - 64
        high = min(start + size + 64, MEMORY)
        for place in range(low, high):
            guest.write(place, b"\xee")
        written: set[int] = set()
        for _ in range(6):
            yield call(RANDOM_BYTES, start, size)
            assert guest["rax"] == OK
            written |= {place for place in range(low, high) if guest.read(place, 1) != b"\xee"}
        assert written == set(range(start, start + size))
        yield call(RANDOM_BYTES, MEMORY - size + 1, size)
        assert guest["rax"] == BAD_ADDRESS
        for number, byte in enumerate(text):
            guest.write(start + number, bytes([byte]))
        yield call(LOG, start, len(text))
        assert guest["rax"] == OK

    machine = machine_for([TestBox("a", b"\xf4", StartMode.LONG, memory_size=MEMORY)], [script])
    machine.run()
    assert not machine.exceptions
    assert f"a| {text.decode()}" in machine.serial_text()


@pytest.mark.parametrize(("flags", "allowed"), [(0, False), (1, False), (2, True), (3, True), (4, False), (6, True)])
def test_who_may_call(flags: int, allowed: bool) -> None:
    """From ring 0 always; from the others only where the descriptor says so, by that flag alone."""

    def script(guest: Guest) -> Script:
        for ring in range(4):
            for number in (YIELD, VERSION):
                yield call(number, 0, 0, ring)
                assert guest["rax"] == (OK if allowed or ring == 0 else NOT_PERMITTED), (flags, ring, number)
                assert guest["rdi"] == (1 if number == VERSION and guest["rax"] == OK else 0)

    play(script, TestBox("a", b"\xf4", StartMode.LONG, flags=flags))

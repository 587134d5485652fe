"""Accesses to absent memory, in any state of a box: its memory, its page tables, its fields, and the instruction that did it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from boot.handoff import DIRECT_MAP
from dsl.hw import vmx
from dsl.hw.x86 import CR0_PG, CR4_PAE, EFER_LMA
from dsl.lang import HostVirtual, offset_of, size_of, u32, u64
from dsl.lang.model import Machine, current_machine
from tests.model.random_exits import PREFIXES, instruction
from tests.model.random_source import Source
from tests.model.vmcs import width_of
from vmm.box import Box
from vmm.guest_memory import NOWHERE, GuestMemory, Paging, translate
from vmm.vcpu import VirtualCpu
from vmm.vmx.information import CODE_LONG

PAGE: Final = 4096
FRAME: Final = 2 << 20
LINK, BOX, BYTES, NUMBERS, FRAMES = 0x60_0000, 0x60_1000, 0x6F_0000, 0x70_0000, 0xA0_0000  # physical, in both worlds
REAL_FRAMES: Final = (3, 0, 4, 1, 2)  # of the machine, from FRAMES on: all that a box's frames are
FRAME_COUNT: Final = 1 << 15  # of a box: 64 GiB, so that PSE-36 leads somewhere
LARGEST: Final = FRAME_COUNT * FRAME
PRESENT, LARGE = 1, 1 << 7
LONG: Final = ((39, 9), (30, 9), (21, 9), (12, 9))  # where each level's index begins, and its bits
PAE: Final = ((30, 2), (21, 9), (12, 9))
SHORT: Final = ((22, 10), (12, 10))
LOW_NOISE: Final = 0xF7E  # bits of an entry that say nothing about the address
HIGH_NOISE: Final = 0xFFF << 52
ALL_FIELDS: Final = {field.encoding: (1 << width_of(field.encoding)) - 1 for field in vmx.FIELDS.values()}
Writes = list[tuple[int, bytes]]


def numbers() -> bytes:
    """The numbers of a box's frames: no two whose places differ by one bit are the same."""
    found = (FRAMES // FRAME + REAL_FRAMES[index % len(REAL_FRAMES)] for index in range(FRAME_COUNT))
    return b"".join(number.to_bytes(8, "little") for number in found)


def map_world(machine: Machine) -> Writes:
    """Make memory under CPython; what any other world needs of it."""
    source = Source("the frames")
    content = [(NUMBERS, numbers()), (FRAMES, source.randbytes(len(REAL_FRAMES) * FRAME))]
    machine.memory.map(DIRECT_MAP + LINK, NUMBERS - LINK)
    for place, data in content:
        machine.memory.map(DIRECT_MAP + place, len(data), data)
    machine.cpu.vmx.current = 0
    return content


def host(guest_physical: int) -> int:
    """The physical address of one of a box."""
    return FRAMES + REAL_FRAMES[(guest_physical // FRAME) % len(REAL_FRAMES)] * FRAME + guest_physical % FRAME


def box() -> Box:
    """The box, where it is in both worlds."""
    return Box.at(HostVirtual(DIRECT_MAP + BOX))


def memory() -> GuestMemory:
    """Its memory."""
    return box().memory


def any_size(source: Source) -> int:
    """How much memory a box has: all that is possible, most often, or some frames, or less by some pages."""
    frames = source.choice((FRAME_COUNT, FRAME_COUNT, source.randint(1, 6)))
    return frames * FRAME - source.choice((0, 0, 0, PAGE, 0x3_3000))


def any_memory(source: Source) -> None:
    """Its memory, of any size."""
    memory().frames = HostVirtual(DIRECT_MAP + NUMBERS)
    memory().frame_count = u64(FRAME_COUNT)
    memory().size = u64(any_size(source))


@dataclass
class Case:
    """One box and what it did. writes: to physical memory, in order; fields: all of the VMCS."""

    writes: Writes
    fields: dict[int, int]

    def write(self, place: int, data: bytes) -> None:
        """Write in the world of CPython, and keep it for the other."""
        current_machine().memory.write(DIRECT_MAP + place, data)
        self.writes.append((place, data))

    def put(self, guest_physical: int, data: bytes) -> None:
        """Write to the box's memory, what lies in it."""
        for number, byte in enumerate(data[: max(0, int(memory().size) - guest_physical)]):
            self.write(host(guest_physical + number), bytes([byte]))


class Tables:
    """The guest's page tables, made where a walk comes by."""

    def __init__(self, case: Case, source: Source, levels: tuple[tuple[int, int], ...], root: int) -> None:
        self.case, self.source, self.levels, self.root = case, source, levels, root
        self.width = 4 if levels is SHORT else 8
        self.entries: dict[int, int] = {}  # by place: where it leads

    def page(self) -> int:
        """A page, mostly of memory."""
        limit = int(memory().size) if self.width == 8 else min(int(memory().size), 1 << 32)
        beyond = limit - PAGE, limit, (1 << 32) - PAGE, self.source.getrandbits(8 * min(self.width, 6)) & -PAGE
        return self.source.randrange(limit // PAGE) * PAGE if self.source.randrange(24) else self.source.choice(beyond)

    def entry(self, shift: int) -> int:
        """An entry of a level."""
        target = self.page()
        is_present = self.source.randrange(24) != 0
        noise = self.source.getrandbits(64) & (LOW_NOISE if self.width == 4 else LOW_NOISE | HIGH_NOISE)
        if shift > 12 and self.source.randrange(4) == 0:
            noise |= LARGE | self.source.getrandbits(shift) & ~0xFFF
            target &= -1 << shift
            if shift == 22:
                noise &= ~(0xFF << 13)
                target |= self.source.getrandbits(4 if self.source.randrange(4) else 8) << 13
        return (target | noise | is_present) & (1 << 8 * self.width) - 1

    def lead(self, linear: int) -> None:
        """Make what is not there of a walk for an address, whether or not it comes so far."""
        table = self.root
        for shift, bits in self.levels:
            place = table + (linear >> shift & (1 << bits) - 1) * self.width
            if place not in self.entries:
                entry = self.entry(shift)
                self.case.put(place, entry.to_bytes(self.width, "little"))
                self.entries[place] = entry & 0x000F_FFFF_FFFF_F000
            table = self.entries[place]


def any_linear(source: Source, is_64_bit: bool, is_translated: bool) -> int:
    """Where an instruction is: often on two pages, often where an index is the last."""
    linear = source.getrandbits(source.choice((48, 48, 64)) if is_64_bit else 32)
    if not is_translated:
        linear = source.randrange(min(int(memory().size), 1 << 32))
    if source.randrange(4) == 0:
        linear |= source.choice((0x3FF << 12, 0x1FF << 21, 0x3FF << 22, 3 << 30, 0x1FF << 39))
    if source.randrange(2):
        linear = linear & -PAGE | PAGE - source.randint(1, 16)
    return linear & (2**64 - 1 if is_64_bit else 2**32 - 1)


def any_code(source: Source, is_64_bit: bool) -> bytes:
    """An instruction, mostly a move; REX means nothing outside 64-bit code; seldom nothing but prefixes."""
    if source.randrange(40) == 0:
        return bytes(source.choice(PREFIXES) for _ in range(source.randint(11, 15)))
    code = instruction(source, is_64_bit or source.randrange(4) == 0)
    return code[: source.choice((15, 15, 15, source.randint(1, 15)))]


def any_fields(source: Source) -> dict[int, int]:
    """Noise in every field."""
    return {encoding: source.getrandbits(64) & mask for encoding, mask in ALL_FIELDS.items()}


def any_paging(source: Source, case: Case) -> tuple[Paging, tuple[tuple[int, int], ...]]:
    """How the guest translates, with the levels of its tables."""
    is_on, is_long, is_pae = source.choice(
        ((False, False, False), (True, False, False), (True, False, True), *[(True, True, True)] * 4)
    )
    if source.randrange(16) == 0:
        is_on, is_long, is_pae = (bool(source.getrandbits(1)) for _ in range(3))
    levels = LONG if is_long else PAE if is_pae else SHORT
    limit = int(memory().size) if levels is LONG else min(int(memory().size), 1 << 32)
    root = source.randrange(limit // PAGE) * PAGE + (source.randrange(128) * 32 if levels is PAE else 0)
    ignored = {LONG: 0xFFF | HIGH_NOISE, PAE: 0x1F | -1 << 32, SHORT: 0xFFF | -1 << 32}[levels]
    cr3 = root | source.getrandbits(64) & ignored
    bits = ((vmx.GUEST_CR0, CR0_PG, is_on), (vmx.GUEST_CR4, CR4_PAE, is_pae), (vmx.GUEST_EFER, EFER_LMA, is_long))
    for field, mask, is_set in bits:
        case.fields[field.encoding] = case.fields[field.encoding] & ~int(mask) | (int(mask) if is_set else 0)
    case.fields[vmx.GUEST_CR3.encoding] = cr3
    return Paging(u64(cr3), is_on, is_long, is_pae), levels


def any_box(source: Source, case: Case) -> None:
    """A box; of its virtual CPU everything that nothing here looks at is noise."""
    content = bytearray(size_of(Box))
    first = int(offset_of(Box, "vcpu"))
    content[first : first + size_of(VirtualCpu)] = source.randbytes(size_of(VirtualCpu))
    current_machine().memory.write(DIRECT_MAP + BOX, bytes(content))
    any_memory(source)
    box().vcpu.pending.information = u32(source.choice((0,) * 15 + (source.getrandbits(32),)))
    case.writes.append((BOX, current_machine().memory.read(DIRECT_MAP + BOX, size_of(Box))))


def any_access(source: Source) -> Case:
    """A box that did what only absent memory answers, or what the exit may say besides; all in the current machine too."""
    case = Case([], any_fields(source))
    any_box(source, case)
    paging, levels = any_paging(source, case)
    case.fields[vmx.GUEST_CS_ACCESS_RIGHTS.encoding] |= source.choice((0, CODE_LONG, CODE_LONG))
    is_64_bit = paging.is_long and case.fields[vmx.GUEST_CS_ACCESS_RIGHTS.encoding] & CODE_LONG != 0
    linear = any_linear(source, is_64_bit, paging.is_on)
    base = source.choice((0, source.getrandbits(32), -PAGE))
    rip = linear if is_64_bit else linear - base & 0xFFFF_FFFF | source.getrandbits(64) & -1 << 32
    case.fields[vmx.GUEST_RIP.encoding] = rip
    case.fields[vmx.GUEST_CS_BASE.encoding] = base & 0xFFFF_FFFF_FFFF_FFFF
    plain = source.choice((0x180,) * 14 + (0x80, 0x100)) | source.choice((0,) * 9 + (4,))
    case.fields[vmx.EXIT_QUALIFICATION.encoding] = source.getrandbits(64) & ~0x184 | plain
    code = any_code(source, is_64_bit)
    code += source.randbytes(15 - len(code))
    if paging.is_on:
        tables = Tables(
            case, source, levels, int(paging.root) & (0xF_FFFF_FFFF_F000 if levels is LONG else 0xFFFF_F000)
        )
        if levels is PAE:
            tables.root = int(paging.root) & 0xFFFF_FFE0
        for address in (linear, linear + 15):
            tables.lead(address)
    ends = [0, min(15, PAGE - linear % PAGE), 15]
    for start, end in pairwise(ends):
        place = int(translate(memory(), paging, u64((linear + start) % 2**64)))
        if place != NOWHERE:
            case.put(place, code[start:end])
    return case

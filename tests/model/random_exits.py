"""Boxes whose instructions and memory accesses end in exits at random: what each script is about is its name."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from dsl.hw import vmx
from tests.model.random_source import (
    COM1,
    FRAME,
    HAS_ERROR,
    IF,
    MEMORY,
    PIC1,
    PIT,
    REASON,
    VALID,
    Source,
    far_ahead,
    outs,
    pics_ready,
    rings,
)
from tests.model.vmx_operation import Exit, Guest, Script

LEAVES: Final = (
    0, 1, 2, 4, 6, 7, 0xA, 0xB, 0xD, 0x14, 0x15, 0x16, 0x17, 0x3F, 0x40, 0x7F, 0x3FFF_FFFF, 0x4000_0000, 0x4000_0001,
    0x7FFF_FFFF, 0x8000_0000, 0x8000_0001, 0x8000_0004, 0x8000_0007, 0x8000_0008, 0x8000_0009, 0x8000_003F, 0xBFFF_FFFF,
    0xC000_0000, 0xFFFF_FFFF,
)  # fmt: skip


CR4_ANY: Final = 0x4_069F  # VME, PVI, TSD, DE, PSE, PGE, OSFXSR, OSXMMEXCPT and OSXSAVE: a guest's own


def cpuid(guest: Guest, source: Source) -> Script:
    """CPUID of all kinds of leaves."""
    for _ in range(220):
        leaf = source.choice((source.choice(LEAVES), source.randrange(0x41), 0x8000_0000 + source.randrange(12)))
        subleaf = source.choice((0, 0, 1, 2, 3, 9, 62, 63, 64, 65, 66, 127, 2**32 - 1))
        registers = source.registers(
            rax=source.getrandbits(32) << 32 | leaf, rcx=source.getrandbits(32) << 32 | subleaf
        )
        cr4 = guest[vmx.GUEST_CR4] & ~CR4_ANY | source.getrandbits(19) & CR4_ANY
        fields = source.state() | {vmx.GUEST_CR4: cr4}
        yield Exit(REASON.CPUID, length=2, registers=registers, fields=fields, ticks=source.ticks())


MSRS: Final = (
    0x10, 0x17, 0x1B, 0x3A, 0x48, 0x49, 0x8B, 0x174, 0x1A0, 0x277, 0x480, 0x802,
    0xC000_0080, 0xC000_0081, 0xC000_0103, 0xFFFF_FFFF,
)  # fmt: skip


def msr(guest: Guest, source: Source) -> Script:
    """RDMSR and WRMSR of what the bitmap intercepts."""
    for _ in range(220):
        number = source.choice((source.choice(MSRS), source.randrange(0x200), 0xC000_0000 | source.randrange(0x110)))
        value = source.choice((source.word(), 0xD01, 0x500, 0x901, source.getrandbits(12), 1 << source.randrange(12)))
        registers = source.registers(rcx=source.getrandbits(32) << 32 | number)
        registers |= {
            "rax": registers["rax"] & ~0xFFFF_FFFF | value & 0xFFFF_FFFF,
            "rdx": value >> 32 | source.choice((0, 7 << 32)),
        }
        reason = source.choice((REASON.RDMSR, REASON.WRMSR))
        yield Exit(reason, length=2, registers=registers, fields=source.state(), ticks=source.ticks())


def control_registers(guest: Guest, source: Source) -> Script:
    """MOV to CR0, CR4 and CR8, MOV from CR8, XSETBV."""
    for _ in range(220):
        number, register = source.choice((0, 0, 4, 8, 8)), source.randrange(16)
        access = source.randrange(2) if number == 8 else 0
        value = source.choice(
            (
                source.word(),
                source.randrange(18),
                1 << source.randrange(64) | 0x31,
                0xE000_0031 ^ 1 << source.randrange(33),
            )
        )
        registers = source.registers()
        fields = source.state()
        if register == 4:
            fields |= {vmx.GUEST_RSP: value}
        else:
            registers[GENERAL_BY_NUMBER[register]] = value
        if source.randrange(3):
            qualification = number | access << 4 | register << 8
            yield Exit(REASON.CONTROL_REGISTER_ACCESS, qualification, 3, registers=registers, fields=fields)
        else:
            ring = source.choice((0, 0, 0, 3))
            low = source.choice((0, 1, 2, 3, 4, 5, 6, 7, 0xE7, 0x1F, 0x203, source.getrandbits(32)))
            registers |= {"rax": registers["rax"] & ~0xFFFF_FFFF | low, "rdx": source.choice((0, 0, 0, 1, 5 << 32))}
            registers["rcx"] = source.choice((0, 0, 0, 1 << source.randrange(32), 3 << 32))
            yield Exit(REASON.XSETBV, length=3, registers=registers, fields=fields | rings(ring))


GENERAL_BY_NUMBER: Final = (
    "rax", "rcx", "rdx", "rbx", "", "rbp", "rsi", "rdi", *(f"r{number}" for number in range(8, 16)),
)  # fmt: skip


ABSENT: Final = (
    "GETSEC", "VMCLEAR", "VMLAUNCH", "VMPTRLD", "VMREAD", "VMXON", "INVEPT", "VMFUNC", "RDRAND", "RDSEED", "MONITOR",
    "MWAIT", "ENCLS", "RDPMC",
)  # fmt: skip
DELIVERIES: Final = (
    (VALID | 0x31, 0), (VALID | 0xFF, 0), (VALID | 2 << 8 | 2, 0), (VALID | 3 << 8 | HAS_ERROR | 14, 0),
    (VALID | 3 << 8 | HAS_ERROR | 13, 0), (VALID | 3 << 8 | 6, 0), (VALID | 4 << 8 | 0x80, 2),
    (VALID | 5 << 8 | 1, 1), (VALID | 6 << 8 | 3, 1),
)  # fmt: skip


def events(guest: Guest, source: Source) -> Script:
    """Exceptions, interrupted deliveries, interrupts of the host, instructions that a box has not, halts, a timer that interrupts."""
    yield from pics_ready(source)
    yield from outs(source, (PIT + 3, 0x34), (PIT, source.getrandbits(8)), (PIT, source.choice((1, 9))))
    for _ in range(190):
        step = source.randrange(9)
        delivery, length = source.choice(DELIVERIES) if source.randrange(3) == 0 else (0, 3)
        clear = {vmx.GUEST_RFLAGS: 2 | IF, vmx.GUEST_INTERRUPTIBILITY: 0, vmx.GUEST_PENDING_DEBUG_EXCEPTIONS: 0}
        state = source.state() if not delivery else clear
        kind = state | {vmx.GUEST_DR7: source.getrandbits(32)}
        error = source.getrandbits(8)
        delivery |= source.getrandbits(18) << 12 if delivery else 0  # undefined bits, must not get through
        if step < 2:
            exception = source.choice((VALID | 3 << 8 | 1, VALID | 5 << 8 | 1, VALID | 3 << 8 | HAS_ERROR | 17))
            yield Exit(
                REASON.EXCEPTION_OR_NMI, source.choice((0x4000, 0x2001, 0x600F, 0x4, source.getrandbits(16))), length or 1, fields=kind,
                interruption=exception, error_code=error if exception & HAS_ERROR else 0, vectoring=delivery, vectoring_error=error,
            )  # fmt: skip
        elif step < 4:
            reason = source.choice((REASON.PREEMPTION_TIMER, REASON.EXTERNAL_INTERRUPT, REASON.INTERRUPT_WINDOW))
            vector = source.choice((0x30, 0x3E, 0x3F, 0x37, 0x20, 0x27, 0x2F, 0x40, 0xFF))
            yield Exit(
                reason, 0, length, fields=state, vectoring=delivery, vectoring_error=error, interruption=VALID | vector,
                ticks=source.ticks(),
            )  # fmt: skip
        elif step == 4 and source.randrange(4) == 0:
            string = Exit(
                REASON.IO_INSTRUCTION, 1 << 4 | source.getrandbits(1) << 3 | COM1 << 16, 2, fields=source.state()
            )
            yield replace(string, registers=source.registers())
        elif step == 4:
            yield Exit(REASON[source.choice(ABSENT)], length=3, registers=source.registers(), fields=source.state())
        elif step == 5:
            yield source.window()
        elif step == 6:
            yield from outs(source, (PIC1, 0x20))
        elif step == 7:
            yield from source.halt()
        else:
            yield source.pause(source.choice((10, 300, 1500)))
        if source.randrange(60) == 0:
            far_ahead(guest, source)


OPCODES: Final = (0x88, 0x89, 0x8A, 0x8B, 0xA0, 0xA1, 0xA2, 0xA3, 0xC6, 0xC7)
PREFIXES: Final = (0x66, 0x67, 0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65)


def instruction(source: Source, is_64_bit: bool) -> bytes:
    """Prefixes, mostly an opcode of a move, then anything."""
    code = bytes(source.choice(PREFIXES) for _ in range(source.choice((0, 0, 0, 1, 1, 2, 3))))
    if is_64_bit and source.randrange(2):
        code += bytes([0x40 | source.getrandbits(4)])
    kind = source.randrange(8)
    if kind < 5:
        code += bytes([source.choice(OPCODES)])
    elif kind < 7:
        code += bytes([0x0F, source.choice((0xB6, 0xB7, 0xBE, 0xBF, 0xB6 ^ 1 << source.randrange(8), 0, 1, 9))])
    else:
        code += source.randbytes(1)
    modrm = source.choice(
        (
            source.getrandbits(8),
            source.choice((0x06, 0x04, 0x05, 0x44, 0x84, 0x0E, 0x26, 0x86, 0x46)),
            source.getrandbits(8) & 0xC7,
        )
    )
    sib = source.choice((source.getrandbits(8), source.getrandbits(8) | 5))  # base 5 has a displacement of its own
    return (code + bytes([modrm, sib]) + source.randbytes(20))[: source.choice((30, 30, 30, 15, 20))]


def violation(source: Source, fields: dict[object, int]) -> Exit:
    """An access to absent memory, or what the exit may say besides."""
    qualification = source.choice((0x181, 0x182, 0x181, 0x182, 0x184, 0x081, 0x101, 0x187, 0x1F1, 0x192))
    qualification |= (
        source.getrandbits(7) << 6 & 0x1E40
    )  # user's execution, advanced information, NMI unblocking: undefined
    address = 0x3000_0000 + source.getrandbits(20)
    fields = source.state() | fields
    return Exit(
        REASON.EPT_VIOLATION, qualification, registers=source.registers(), fields=fields, guest_physical=address
    )


def absent_memory(guest: Guest, source: Source) -> Script:
    """Moves of all forms on absent memory, of 64-bit code, and of 32 and 16-bit code below it; some at the end of a page or of memory."""
    for _ in range(400):
        bits = source.choice((64, 64, 32, 16, 16))
        code = instruction(source, bits == 64)
        linear = source.choice(
            (
                0x5000 + source.randrange(256),
                0x5FF0 + source.randrange(16),
                MEMORY - source.randint(1, 16),
                MEMORY - source.randint(1, 5),
                FRAME - source.randint(1, 16),
                2 * FRAME - source.randint(1, 16),
            )
        )
        guest.write(linear, code[: MEMORY - linear])
        rights = {64: 0xA09B, 32: 0xC09B, 16: 0x809B}[bits]
        base = 0 if bits == 64 else source.choice((0, 0x1000, 0xFFFF_F000))
        fields: dict[object, int] = {vmx.GUEST_RIP: linear if bits == 64 else linear - base & 0xFFFF_FFFF}
        fields |= {vmx.GUEST_CS_ACCESS_RIGHTS: rights, vmx.GUEST_CS_BASE: base, vmx.GUEST_RSP: source.getrandbits(47)}
        yield violation(source, fields)


CR0_PG, CR4_PAE = 1 << 31, 1 << 5
NOISE: Final = 0x7F0_0000_0000_0F7E  # bits of an entry that say nothing about the address
PRESENT, LARGE, EFER_NXE = 1, 1 << 7, 1 << 11


def places(source: Source, count: int) -> list[int]:
    """Pages for an instruction and for tables, each in any frame of the box."""
    return [source.randrange(3) * FRAME + 0x5000 + 0x1_1000 * number for number in range(count)]


def protected_memory(guest: Guest, source: Source) -> Script:
    """The same in 32-bit code: without paging, and through page tables of two and three levels, some entries of which are not there."""
    for _ in range(150):
        code, root, second, third = places(source, 4)
        is_last = source.choice((0, 0, 0, 0, 1, 2))
        if is_last == 1:  # a level whose last entry ends where memory does
            root = MEMORY - 4096
        elif is_last == 2:
            second = MEMORY - 4096
        second |= source.choice((0, 0, 0, 0, 0, 0x4000_0000))  # which may be no memory
        guest.write(code, instruction(source, False))
        kind = source.choice(("none", "short", "short", "pae", "pae"))
        is_large, broken = bool(source.randrange(2)), source.choice((0, 0, 0, 1, 2, 3))
        page = (1 << {"none": 12, "short": 22, "pae": 21}[kind] if is_large else 4096) - 1
        linear = source.getrandbits(32) & ~page | code & page
        if is_last:
            linear |= (0xFFC0_0000 if is_last == 1 else 1023 << 12) if kind == "short" else 511 << 21
        leaf = code & ~page | (LARGE if is_large else 0)
        rows: list[tuple[int, int, int]] = []
        if kind == "short":
            above = source.choice((0, 0, 0, 1 << source.randint(13, 20))) if is_large else 0
            noise = 0xF7E | (source.choice((0, 1 << 12, 1 << 21)) if is_large else 0)
            directory = (leaf | above if is_large else second) | noise
            rows = [(root + (linear >> 22) * 4, directory, 4), (second + (linear >> 12 & 1023) * 4, leaf | 0xFFE, 4)]
        elif kind == "pae":
            root += source.choice((0, 0x20, 0xFE0))
            directory = (leaf if is_large else third) | NOISE
            rows = [
                (root + (linear >> 30) * 8, second | source.choice((0, NOISE, LARGE)), 8),
                (second + (linear >> 21 & 511) * 8, directory, 8),
                (third + (linear >> 12 & 511) * 8, leaf & ~LARGE | NOISE, 8),
            ]
        for level, (place, entry, size) in enumerate(rows[: len(rows) - is_large], 1):
            if place < MEMORY:
                guest.write(place, (entry & ~PRESENT | (level != broken)).to_bytes(size, "little"))
        paging = {"none": (0, 0), "short": (CR0_PG, 0), "pae": (CR0_PG, CR4_PAE)}[kind]
        ignored = source.choice((0, 0x1F if kind == "pae" else 0xFFF, 1 << 32, 1 << 35))
        fields: dict[object, int] = {
            vmx.GUEST_CR0: guest[vmx.GUEST_CR0] & ~CR0_PG | paging[0], vmx.GUEST_CR4: guest[vmx.GUEST_CR4] & ~CR4_PAE | paging[1],
            vmx.GUEST_CR3: root | ignored, vmx.GUEST_RIP: code if kind == "none" else linear,
            vmx.GUEST_EFER: source.choice((0, 0, 1, EFER_NXE)),
        }  # fmt: skip
        yield violation(source, fields)


def long_memory(guest: Guest, source: Source) -> Script:
    """The same in 64-bit code through page tables of four levels, with large pages, and entries that are not there or lead nowhere."""
    for _ in range(130):
        code, *tables = places(source, 5)
        levels, broken = source.choice((2, 3, 4, 4)), source.choice((0, 0, 0, 1, 2, 3, 4))
        page = (1 << 39 - 9 * (levels - 1)) - 1
        offset = source.choice((0, 0, 0xFFD, 0xFF8))
        following = code + (0x3000 if levels == 4 else 0x1000)  # the page after the instruction's
        text = instruction(source, True)
        guest.write(code + offset, text[: 4096 - offset])
        guest.write(following, text[4096 - offset :])
        linear = source.getrandbits(47) & ~page | code & page
        for level in range(levels):
            is_leaf = level == levels - 1
            target = code & ~page | source.choice((0, 0, 0, 0x8000_0000)) if is_leaf else tables[level + 1]
            entry = target | NOISE | (LARGE if level == 0 or (is_leaf and levels < 4) else 0)
            index = linear >> 39 - 9 * level & 511
            guest.write(tables[level] + index * 8, (entry | (level + 1 != broken)).to_bytes(8, "little"))
            if level == 3 and index < 511:
                guest.write(tables[level] + index * 8 + 8, (following | NOISE | PRESENT).to_bytes(8, "little"))
        yield violation(
            source,
            {
                vmx.GUEST_CR3: tables[0] | source.choice((0, 0x18, 0xFFF)),
                vmx.GUEST_RIP: linear | offset,
                vmx.GUEST_CS_ACCESS_RIGHTS: 0xA09B,
                vmx.GUEST_CS_BASE: 0,
            },
        )


def late(guest: Guest, source: Source) -> Script:
    """Hot exits before which the deadline passed unseen, some with an event that was just delivered, or one that waits."""
    yield from pics_ready(source)
    yield from outs(source, (PIT + 3, 0x34), (PIT, 0), (PIT, source.choice((1, 9))))
    for number in range(330):
        if source.randrange(2):
            yield Exit(REASON.RDPMC, length=2, registers=source.registers(), fields=source.state(), ticks=400)
        if number % 64 in (0, 61, 62, 63) or source.randrange(8) == 0:
            guest.machine.clock.pass_ticks(source.choice((1 << 23, 1 << 33)))
        registers = source.registers(rax=source.choice((0, 1, 7, 0x4000_0000)), rcx=source.randrange(2))
        hot = (
            Exit(REASON.CPUID, length=2, registers=registers, fields=source.state(), ticks=40),
            Exit(REASON.VMCALL, length=3, registers=registers | {"rax": 0}, fields=source.state() | rings(0), ticks=40),
            replace(source.io(0x80, False, source.byte()), ticks=40),
            replace(source.io(source.choice((PIC1 + 1, 0x71, 0x80)), True), ticks=40),
        )
        yield source.choice(hot)


ENDORSED: Final = 70  # which call succeeds
GOOD_ENDORSE: Final = {"rdi": FRAME - 100, "rsi": 328, "rdx": 2 * FRAME - 517, "r10": 1028}


def hypercalls(guest: Guest, source: Source) -> Script:
    """Calls with arguments at every boundary. ENDORSE, which takes long, succeeds once."""
    places = (0, 0x4000, FRAME - 9, MEMORY - 256, MEMORY - 255, MEMORY - 1, MEMORY, 2**64 - 1, 2**64 - 256, 1 << 63)
    pages = (0x4000, FRAME - 128, 2 * FRAME - 17)  # where good arguments lie, two of them across the end of a frame
    request = bytearray(328)
    for number in range(150):
        kind = source.choice((0, 1, 2, 2, 3, 4, 4, 5, 6, 6, 7, 1 << 32, source.word())) if number != ENDORSED else 2
        size = source.choice((0, 1, 7, 255, 256, 257, 328, 3184, source.word()))
        arguments = {
            "rdi": source.choice((*places, source.word())),
            "rsi": size,
            "rdx": source.choice((*places, 7, 8, 9, 10)),
            "r10": source.choice((0, 1, 1028, 1250, 1251)),
        }
        if kind in (3, 4) and source.randrange(2):
            page = source.choice(pages)
            guest.write(page, source.randbytes(256))
            arguments |= {"rdi": page + source.randrange(16), "rsi": source.randint(1, 240)}
        elif kind == 6 and source.randrange(4):
            arguments |= {
                "rdi": source.choice((*pages, MEMORY - 256)),
                "rsi": source.choice((1, 64, 256)),
                "rdx": source.randint(6, 10),
                "r10": source.randrange(1300),
            }
        elif kind == 2:
            request[:64] = source.randbytes(64)
            request[64:72] = (
                b"\x48\0\0\0\0\0\0\0"
                if number == ENDORSED
                else source.choice(
                    (b"\x01\x01\0\0\0\0\0\0", b"\0\0\0\x80\0\0\0\0", b"\x08\0\0\0\x01\0\0\0", b"\0\0\0\0\0\0\0\x80")
                )
            )
            page = source.choice((0x4000, FRAME - 100)) if number != ENDORSED else GOOD_ENDORSE["rdi"]
            guest.write(page, bytes(request))
            arguments |= {
                "rdi": source.choice((page, page, page, page, MEMORY - 1)),
                "rsi": source.choice((328, 328, 328, 328, 327, 329)),
                "rdx": source.choice((0x8000, 0x8000, 0x8000, MEMORY - 1027, MEMORY - 1028)),
                "r10": source.choice((1028, 1028, 1028, 1027, 2000)),
            }
            arguments |= GOOD_ENDORSE if number == ENDORSED else {}
        elif kind == 1:
            arguments |= {
                "rdi": source.choice((MEMORY - 3183, MEMORY - 3184, *pages, 1 << 63)),
                "rsi": source.choice((3184, 3183, 4000)),
            }
        ring = source.choice((0, 0, 0, 0, 3, 1)) if number != ENDORSED else 0
        yield Exit(
            REASON.VMCALL,
            length=3,
            registers=source.registers(rax=kind, **arguments),
            fields=source.state() | rings(ring),
            ticks=400,
        )
        if number % 16 == 15:
            yield source.pause(20_000)

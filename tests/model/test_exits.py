"""Exits and their handlers, in the emitted monitor: what it wrote into the guest, and what it left alone."""

from __future__ import annotations

import re

import pytest

from dsl.hw import vmx
from dsl.hw import x86 as manual
from tests.model.processor import Processor
from tests.model.start import machine_for, play
from tests.model.vmx_operation import GENERAL, Exit, Guest, Script
from tests.vmm.images import TestBox
from vmm.cpu import GATE_COUNT, GDT_ENTRIES
from vmm.descriptor import StartMode

pytestmark = pytest.mark.t1
REASON = vmx.ExitReason
LONG = TestBox("a", b"\xf4", StartMode.LONG)
GENERAL_PROTECTION = 0x8000_0B0D  # hardware exception 13 with an error code
GENERAL_PROTECTION_REAL = 0x8000_030D
INVALID_OPCODE = 0x8000_0306
CANARIES = {name: 0x1111_2222_0000_0000 + number * 0x0101_0101 for number, name in enumerate(GENERAL)}
RING_3 = {vmx.GUEST_SS_ACCESS_RIGHTS: 0xC0F3, vmx.GUEST_CS_ACCESS_RIGHTS: 0xA0FB}


def unchanged(guest: Guest, before: dict[str, int], *changed: str) -> None:
    """All registers but these are as they were."""
    for name, value in before.items():
        if name not in changed:
            assert guest[name] == value, name


# --- CPUID

HIDDEN = {  # leaf 1, ECX
    "MONITOR": 3, "VMX": 5, "SMX": 6, "EST": 7, "TM2": 8, "PDCM": 15, "x2APIC": 21, "TSC deadline": 24, "RDRAND": 30,
}  # fmt: skip
LEAVES = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0xA, 0xB, 0xC, 0xD, 0xE, 0x14, 0x1F, 0x3FFF_FFFF, 0x4000_0000, 0x4000_0001, 0x7FFF_FFFF,
          0x8000_0000, 0x8000_0001, 0x8000_0002, 0x8000_0007, 0x8000_0008, 0x8000_0009, 0x8FFF_FFFF, 0xFFFF_FFFF]  # fmt: skip


def test_cpuid_answers_four_words_and_nothing_else() -> None:
    """Every leaf: upper halves zero, no other register touched, RIP past the instruction, the answer the same each time."""
    answers: dict[tuple[int, int], tuple[int, ...]] = {}

    def script(guest: Guest) -> Script:
        for _ in range(2):
            for leaf in LEAVES:
                for subleaf in (0, 1, 2, 63, 64, 0xFFFF_FFFF):
                    before = CANARIES | {"rax": 0xDEAD_0000_0000_0000 | leaf, "rcx": 0xBEEF_0000_0000_0000 | subleaf}
                    rip = guest.rip
                    yield Exit(REASON.CPUID, length=2, registers=before, fields={vmx.GUEST_RIP: rip & 0xFFFF})
                    assert guest.rip == (rip & 0xFFFF) + 2
                    words = tuple(guest[name] for name in ("rax", "rbx", "rcx", "rdx"))
                    assert all(word >> 32 == 0 for word in words), (hex(leaf), subleaf)
                    unchanged(guest, before, "rax", "rbx", "rcx", "rdx")
                    assert answers.setdefault((leaf, subleaf), words) == words

    play(script)
    assert b"".join(word.to_bytes(4, "little") for word in answers[0x4000_0000, 0][1:]) == b"TerraneTerra"
    features = answers[1, 0][2]
    assert not [name for name, bit in HIDDEN.items() if features >> bit & 1]
    assert features >> 31 & 1
    assert not features >> 27 & 1  # OSXSAVE: CR4 has it clear
    structured = answers[7, 0]
    assert not any(structured[1] >> bit & 1 for bit in (1, 2, 4, 11, 12, 14, 15, 18, 22, 25))
    assert not any(structured[2] >> bit & 1 for bit in (3, 4, 5, 7, 16, 29, 30))
    assert not structured[3] >> 29 & 1  # ARCH_CAPABILITIES
    assert answers[0xD, 0] == (7, 576, 832, 0)  # of what XCR0 enables, of all that it may
    assert answers[0xD, 1][0] == 5  # XSAVEOPT and XGETBV(1); XSAVEC and XSAVES hidden
    assert answers[0xD, 2][:3] == (256, 576, 0)
    nothing = [
        (7, 1),
        (0xD, 63),
        (0xD, 64),
        (3, 0),
        (5, 0),
        (6, 0),
        (0xA, 0),
        (0xB, 0),
        (0xE, 0),
        (0x14, 0),
        (0x4000_0001, 0),
    ]
    nothing += [(0x3FFF_FFFF, 0), (0x7FFF_FFFF, 0), (0x8000_0009, 0), (0xFFFF_FFFF, 0)]
    for leaf, subleaf in nothing:
        assert answers[leaf, subleaf] == (0, 0, 0, 0), hex(leaf)


def test_osxsave_follows_cr4() -> None:
    """Leaf 1 shows OSXSAVE as the guest's CR4 has it."""
    seen: list[int] = []

    def script(guest: Guest) -> Script:
        for bit in (0, 1, 0):
            cr4 = guest[vmx.GUEST_CR4] & ~(1 << 18) | bit << 18
            yield Exit(REASON.CPUID, length=2, registers={"rax": 1}, fields={vmx.GUEST_CR4: cr4})
            seen.append(guest["rcx"] >> 27 & 1)

    play(script)
    assert seen == [0, 1, 0]


def test_an_instruction_ends_the_interrupt_shadow_and_single_steps() -> None:
    """After an emulated instruction blocking by STI is over, and with TF a single step is pending."""

    def script(guest: Guest) -> Script:
        for reason in (REASON.CPUID, REASON.INVD):
            fields = {vmx.GUEST_INTERRUPTIBILITY: 1, vmx.GUEST_RFLAGS: 0x202, vmx.GUEST_PENDING_DEBUG_EXCEPTIONS: 0}
            yield Exit(reason, length=2, registers={"rax": 0}, fields=fields)
            assert guest[vmx.GUEST_INTERRUPTIBILITY] == 0
            assert guest[vmx.GUEST_PENDING_DEBUG_EXCEPTIONS] == 0
            fields = {vmx.GUEST_INTERRUPTIBILITY: 2, vmx.GUEST_RFLAGS: 0x102}
            yield Exit(reason, length=2, registers={"rax": 0}, fields=fields)
            assert guest[vmx.GUEST_INTERRUPTIBILITY] == 0
            assert guest[vmx.GUEST_PENDING_DEBUG_EXCEPTIONS] == 1 << 14

    play(script, LONG)


# --- MSRs

READ_CONSTANTS = {0x17: 0, 0x1B: 0xFEE0_0100, 0x8B: 0, 0x1A0: 0x1801}
WRITES_SWALLOWED = {0x8B, 0x1A0}
PASSED_READS = {0x10, 0x48, 0x174, 0x175, 0x176, 0x277, *range(0xC000_0080, 0xC000_0085), 0xC000_0100, 0xC000_0101,
                0xC000_0102, 0xC000_0103}  # fmt: skip
PASSED_WRITES = PASSED_READS - {0x10, 0xC000_0080} | {0x49}
EMULATED_WRITES = {0x10, 0xC000_0080}
PROBES = sorted(
    {*range(0x200), *range(0x1FF0, 0x2010), *range(0xC000_0000, 0xC000_0120), *range(0xC000_1FF0, 0xC000_2010), 0x277, 0x3A,
     0x480, 0x48F, 0x6E0, 0x802, 0xDA0, 0x1000_0000, 0x4000_0000, 0xBFFF_FFFF, 0xC001_0015, 0xFFFF_FFFF}
)  # fmt: skip


def test_the_msr_bitmap_passes_the_allow_list_and_nothing_else() -> None:
    """The page that the processor reads, bit by bit."""
    bitmaps: list[bytes] = []

    def script(guest: Guest) -> Script:
        bitmaps.append(guest.machine.read_physical(guest[vmx.MSR_BITMAP], 4096))
        ports = guest.machine.read_physical(guest[vmx.IO_BITMAP_A], 4096) + guest.machine.read_physical(
            guest[vmx.IO_BITMAP_B], 4096
        )
        assert ports == b"\xff" * 8192
        yield from ()

    play(script)
    bitmap = int.from_bytes(bitmaps[0], "little")
    clear = {position for position in range(4096 * 8) if not bitmap >> position & 1}
    passed = {number if number < 0x2000 else number - 0xC000_0000 + 0x2000 for number in PASSED_READS}
    passed |= {(number if number < 0x2000 else number - 0xC000_0000 + 0x2000) + 0x4000 for number in PASSED_WRITES}
    assert clear == passed


def test_intercepted_msrs() -> None:
    """A read gives the constant or #GP(0), a write is swallowed or #GP(0); none reaches the processor's own MSRs."""

    def script(guest: Guest) -> Script:
        own = dict(guest.machine.msrs)
        for number in PROBES:
            if number not in PASSED_READS:
                rip, before = guest.rip, CANARIES | {"rcx": 0xFFFF_0000_0000_0000 | number}
                yield Exit(REASON.RDMSR, length=2, registers=before)
                if number in READ_CONSTANTS:
                    assert (guest.event, guest.rip) == (0, rip + 2), hex(number)
                    assert (guest["rax"], guest["rdx"]) == (READ_CONSTANTS[number], 0)
                    unchanged(guest, before, "rax", "rdx")
                else:
                    assert (guest.event, guest.event_error, guest.event_length) == (GENERAL_PROTECTION, 0, 0), hex(
                        number
                    )
                    assert guest.rip == rip, hex(number)
                    unchanged(guest, before)
            if number not in PASSED_WRITES | EMULATED_WRITES:
                rip, before = guest.rip, CANARIES | {"rcx": number, "rax": 1, "rdx": 0x8000}
                yield Exit(REASON.WRMSR, length=2, registers=before)
                if number in WRITES_SWALLOWED:
                    assert (guest.event, guest.rip) == (0, rip + 2), hex(number)
                else:
                    assert (guest.event, guest.event_error, guest.event_length) == (GENERAL_PROTECTION, 0, 0), hex(
                        number
                    )
                    assert guest.rip == rip, hex(number)
                unchanged(guest, before)
        assert guest.machine.msrs == own

    play(script, LONG)


def test_a_write_to_the_tsc_moves_the_guest_s_alone() -> None:
    """WRMSR to IA32_TIME_STAMP_COUNTER becomes an offset; the machine's counter is not written."""

    def script(guest: Guest) -> Script:
        for value in (0, 5_000_000_000, 2**63):
            yield Exit(REASON.WRMSR, length=2, registers={"rcx": 0x10, "rax": value & 0xFFFF_FFFF, "rdx": value >> 32})
            late = guest[vmx.TSC_OFFSET] + guest.machine.clock.ticks - value & 0xFFFF_FFFF_FFFF_FFFF
            assert late < 2000, hex(late)

    play(script, LONG)


EFER_WRITES = [
    # paging, EFER before, value, EFER after or None for #GP
    (False, 0, 0, 0),
    (False, 0, 0x100, 0x100),
    (False, 0, 0x901, 0x901),
    (False, 0x100, 0x400, 0),  # LMA cannot be written
    (False, 0, 0x500, 0x100),
    (True, 0x500, 0x100, 0x500),
    (True, 0x500, 0xD01, 0xD01),
    (True, 0x500, 0, None),  # LME under paging
    (True, 0x500, 0x400, None),
    *((False, 0, 1 << bit, None) for bit in range(64) if bit not in (0, 8, 10, 11)),
]


@pytest.mark.parametrize("paging", [False, True])
def test_efer(paging: bool) -> None:
    """WRMSR to IA32_EFER keeps LMA, refuses reserved bits, and a change of LME under paging."""
    rows = [row for row in EFER_WRITES if row[0] == paging]

    def script(guest: Guest) -> Script:
        for _, before, value, after in rows:
            rip = guest.rip
            registers = {"rcx": 0xC000_0080, "rax": value & 0xFFFF_FFFF | 0xFFFF << 32, "rdx": value >> 32}
            yield Exit(REASON.WRMSR, length=2, registers=registers, fields={vmx.GUEST_EFER: before})
            if after is None:
                assert guest.event & 0xFF == 13, hex(value)
                assert (guest[vmx.GUEST_EFER], guest.rip) == (before, rip), hex(value)
            else:
                assert (guest.event, guest[vmx.GUEST_EFER], guest.rip) == (0, after, rip + 2), hex(value)

    play(script, LONG if paging else TestBox("a", b"\xf4", StartMode.PROTECTED))


# --- Control registers


def cr_access(number: int, access: int, register: int) -> int:
    """The qualification of a control-register exit."""
    return number | access << 4 | register << 8


VMXE, MCE, PAE = 1 << 13, 1 << 6, 1 << 5
NE, NW, CD, PE, PG, ET = 1 << 5, 1 << 29, 1 << 30, 1 << 0, 1 << 31, 1 << 4


def test_masks_and_shadows() -> None:
    """NE, NW, CD of CR0 and all of CR4 that guests have not are the monitor's; the shadows start as the guest thinks."""

    def script(guest: Guest) -> Script:
        assert guest[vmx.CR0_MASK] == NE | NW | CD
        assert guest[vmx.CR0_READ_SHADOW] == ET | PE
        assert guest[vmx.GUEST_CR0] == ET | PE | NE
        assert guest[vmx.CR4_MASK] >> 13 & 1
        assert guest[vmx.CR4_MASK] >> 22 == 2**42 - 1
        assert not guest[vmx.CR4_MASK] & 0x37_0FBF & ~(1 << 14 | 1 << 6 | 1 << 12)
        assert guest[vmx.CR4_READ_SHADOW] == 0
        assert guest[vmx.GUEST_CR4] == VMXE | MCE
        yield from ()

    play(script, TestBox("a", b"\xf4", StartMode.PROTECTED))


CR0_MOVES = [
    (ET | PE | NE, True), (ET | PE, True), (ET | PE | CD, True), (ET | PE | CD | NW, True), (ET | CD | NW | NE, True),
    (ET | PE | NW, False), (ET | PG, False), (ET | PE | 1 << 32, False), (ET | PE | 1 << 63, False),
    *((ET | PE | 1 << bit, bit < 32 and 1 << bit != NW) for bit in range(64)),
]  # fmt: skip


def test_mov_to_cr0() -> None:
    """A good value changes the shadow's NE, NW, CD and lets the MOV run again; a bad one is #GP; the real CR0 keeps NE and caches."""

    def script(guest: Guest) -> Script:
        for register, name in enumerate(("rax", "rcx", "rdx", "rbx")):
            for value, good in CR0_MOVES:
                rip, real, shadow = guest.rip, guest[vmx.GUEST_CR0], guest[vmx.CR0_READ_SHADOW]
                yield Exit(
                    REASON.CONTROL_REGISTER_ACCESS, cr_access(0, 0, register), 3, registers=CANARIES | {name: value}
                )
                assert guest.rip == rip
                assert guest[vmx.GUEST_CR0] == real
                if good:
                    assert guest.event == 0
                    assert guest[vmx.CR0_READ_SHADOW] == shadow & ~(NE | NW | CD) | value & (NE | NW | CD)
                else:
                    assert guest.event == GENERAL_PROTECTION
                    assert guest[vmx.CR0_READ_SHADOW] == shadow

    play(script, TestBox("a", b"\xf4", StartMode.PROTECTED))


def test_mov_to_cr0_that_leaves_real_mode() -> None:
    """Of the shadow, only the bits change that are the monitor's: PE is for the MOV itself, which runs again."""

    def script(guest: Guest) -> Script:
        shadow = guest[vmx.CR0_READ_SHADOW]
        yield Exit(REASON.CONTROL_REGISTER_ACCESS, cr_access(0, 0, 0), 3, registers=CANARIES | {"rax": ET | PE | CD})
        assert guest.event == 0
        assert guest[vmx.CR0_READ_SHADOW] == shadow | CD
        assert not shadow & PE

    play(script)


def test_mov_to_cr4_with_masked_bits() -> None:
    """VMXE, and every other bit that a guest has not, is #GP."""

    def script(guest: Guest) -> Script:
        for bit in (6, 12, 13, 14, 15, 19, *range(22, 64)):
            rip = guest.rip
            yield Exit(REASON.CONTROL_REGISTER_ACCESS, cr_access(4, 0, 0), 3, registers={"rax": 0x20 | 1 << bit})
            assert (guest.event, guest.rip) == (GENERAL_PROTECTION, rip)
            assert guest[vmx.GUEST_CR4] == VMXE | MCE | PAE

    play(script, LONG)


def test_cr8_is_virtual() -> None:
    """CR8 keeps what was written, by register number (RSP too), refuses more than 15, and never becomes the host's."""

    def script(guest: Guest) -> Script:
        for number, name in ((0, "rax"), (1, "rcx"), (5, "rbp"), (15, "r15")):
            yield Exit(REASON.CONTROL_REGISTER_ACCESS, cr_access(8, 0, number), 4, registers=CANARIES | {name: number})
            assert guest.event == 0
            rip = guest.rip
            yield Exit(REASON.CONTROL_REGISTER_ACCESS, cr_access(8, 1, 9), 4, registers={"r9": 77})
            assert (guest["r9"], guest.rip) == (number, rip + 4)
        yield Exit(REASON.CONTROL_REGISTER_ACCESS, cr_access(8, 1, 4), 4)
        assert guest[vmx.GUEST_RSP] == 15
        for value in (16, 2**32, 2**63):
            rip = guest.rip
            yield Exit(REASON.CONTROL_REGISTER_ACCESS, cr_access(8, 0, 2), 4, registers={"rdx": value})
            assert (guest.event, guest.rip) == (GENERAL_PROTECTION, rip)

    play(script, LONG)


def test_other_control_register_exits_stop_the_box() -> None:
    """CLTS, LMSW, MOV from CR3: none of them can exit, so they are unknown."""

    def script(guest: Guest) -> Script:
        yield Exit(REASON.CONTROL_REGISTER_ACCESS, cr_access(0, 2, 0), 2)

    play(script, LONG, ending="unknown exit (exit reason 28")


# --- XSETBV

XCR0_VALUES = [(1, True), (3, True), (7, True), (0, False), (2, False), (4, False), (5, False), (6, False), (8, False), (0x18, False),
               (0xE7, False), (0x203, False), (1 | 1 << 32, False), (1 | 1 << 63, False), (2**64 - 1, False)]  # fmt: skip


def test_xsetbv() -> None:
    """A good value is executed; a bad one, another XCR, or ring 3 is #GP(0), and XCR0 stays."""

    def script(guest: Guest) -> Script:
        for value, good in XCR0_VALUES:
            rip, before = guest.rip, guest.machine.xcr0
            registers = {"rcx": 0xABCD << 32, "rax": value & 0xFFFF_FFFF | 0x1234 << 32, "rdx": value >> 32}
            yield Exit(REASON.XSETBV, length=3, registers=registers)
            assert guest.machine.xcr0 == (value if good else before), hex(value)
            assert (guest.event, guest.rip) == ((0, rip + 3) if good else (GENERAL_PROTECTION, rip)), hex(value)
        for registers, fields in (*(({"rcx": 1 << bit}, {}) for bit in range(32)), ({"rcx": 0}, RING_3)):
            before, rip = guest.machine.xcr0, guest.rip
            yield Exit(REASON.XSETBV, length=3, registers={"rax": 1, "rdx": 0, **registers}, fields=fields)
            assert (guest.event, guest.rip, guest.machine.xcr0) == (GENERAL_PROTECTION, rip, before)

    play(script, LONG)


# --- Instructions


def test_cache_instructions_do_nothing() -> None:
    """INVD and WBINVD are skipped; the monitor executes neither for the guest."""

    def script(guest: Guest) -> Script:
        for reason in (REASON.INVD, REASON.WBINVD_OR_WBNOINVD):
            rip = guest.rip
            yield Exit(reason, length=2, registers=CANARIES)
            assert (guest.event, guest.rip) == (0, rip + 2)
            unchanged(guest, CANARIES)

    play(script, LONG)


ABSENT = ["GETSEC", "VMCLEAR", "VMLAUNCH", "VMPTRLD", "VMPTRST", "VMREAD", "VMRESUME", "VMWRITE", "VMXOFF", "VMXON", "INVEPT", "INVVPID",
          "VMFUNC", "RDRAND", "RDSEED", "MONITOR", "MWAIT", "ENCLS"]  # fmt: skip


def test_absent_instructions_are_invalid_opcodes() -> None:
    """What CPUID hides is #UD in every ring, at the instruction itself."""

    def script(guest: Guest) -> Script:
        for name in ABSENT:
            rip = guest.rip
            yield Exit(vmx.ExitReason[name], length=3, registers=CANARIES)
            assert (guest.event, guest.rip) == (INVALID_OPCODE, rip), name
            assert (guest.event_error, guest.event_length) == (0, 0), name
            unchanged(guest, CANARIES)

    play(script, LONG)


def test_faults_have_no_error_code_in_real_mode() -> None:
    """#GP in real mode is injected without an error code: the entry check would refuse it."""

    def script(guest: Guest) -> Script:
        yield Exit(REASON.RDPMC, length=2)
        assert guest.event == GENERAL_PROTECTION_REAL

    play(script)


# --- Ports


def io(port: int, width: int, is_in: bool = False, is_string: bool = False) -> int:
    """The qualification of an I/O exit."""
    return width - 1 | is_in << 3 | is_string << 4 | port << 16


@pytest.mark.parametrize("port", [0x0, 0x80, 0x2F8, 0xCFC, 0x1234, 0xFFFF])
def test_absent_ports_read_all_ones_by_width(port: int) -> None:
    """A narrow IN keeps the rest of RAX, a 32-bit one clears the upper half; the machine's own ports are not touched."""

    def script(guest: Guest) -> Script:
        own = len(guest.machine.ports.written)
        for width, expected in ((1, 0x1111_2222_0000_00FF), (2, 0x1111_2222_0000_FFFF), (4, 0xFFFF_FFFF)):
            rip = guest.rip
            yield Exit(REASON.IO_INSTRUCTION, io(port, width, True), 2, registers=CANARIES)
            assert (guest.event, guest.rip, guest["rax"]) == (0, rip + 2, expected)
            unchanged(guest, CANARIES, "rax")
            yield Exit(REASON.IO_INSTRUCTION, io(port, width), 2, registers=CANARIES)
            assert (guest.event, guest.rip) == (0, rip + 4)
            unchanged(guest, CANARIES)
        foreign = [row for row in guest.machine.ports.written[own:] if row[0] not in range(0x3F8, 0x400)]
        assert not foreign

    play(script, LONG)


def test_string_instructions_are_refused() -> None:
    """INS and OUTS are #GP(0)."""

    def script(guest: Guest) -> Script:
        for is_in in (False, True):
            rip = guest.rip
            yield Exit(REASON.IO_INSTRUCTION, io(0x3F8, 1, is_in, True), 2)
            assert (guest.event, guest.rip) == (GENERAL_PROTECTION, rip)

    play(script, LONG)


# --- Ends


def test_hlt_with_interrupts_off_ends_the_box() -> None:
    """Nothing could wake it."""

    def script(guest: Guest) -> Script:
        yield Exit(REASON.HLT, length=1, fields={vmx.GUEST_RFLAGS: 2})
        raise AssertionError("it ran again")

    play(script, ending="halted with interrupts off (exit reason 12, after 1 exits)")


UNKNOWN = [
    3,
    4,
    5,
    6,
    8,
    14,
    16,
    17,
    29,
    35,
    37,
    38,
    40,
    42,
    43,
    44,
    45,
    46,
    47,
    49,
    51,
    56,
    58,
    62,
    63,
    66,
    74,
    75,
    79,
    80,
    255,
    0x7FFF,
    0xFFFF,
]


@pytest.mark.parametrize("reason", UNKNOWN)
def test_an_unknown_exit_stops_that_box_with_a_dump(reason: int) -> None:
    """Whatever the reason: the dump tells it, and the other box runs on to its own end."""

    def broken(guest: Guest) -> Script:
        yield Exit(reason, qualification=0xABCD, length=2, registers=CANARIES, fields={vmx.GUEST_RIP: 0x4242})
        raise AssertionError("it ran again")

    lived: list[int] = []

    def other(guest: Guest) -> Script:
        for number in range(10):
            lived.append(number)
            yield Exit(REASON.PREEMPTION_TIMER, ticks=3_000_000)

    machine = machine_for([TestBox("broken", b"\xf4"), TestBox("other", b"\xf4\xf4")], [broken, other])
    machine.run()
    text = machine.serial_text()
    assert f"box broken stopped: unknown exit (exit reason {reason}, after 1 exits)" in text
    dump = dict(re.findall(r"(\w+) (0x[0-9a-f]{16})", text.split("after 1 exits")[1].split("box other")[0]))
    expected = {"reason": reason, "qual": 0xABCD, "rip": 0x4242, "rax": CANARIES["rax"], "r8": CANARIES["r8"]}
    assert {name: int(dump[name], 16) for name in expected} == expected
    assert lived == list(range(10))
    assert "box other stopped: triple fault" in text
    assert not machine.exceptions


DUMPED = {
    "rip": vmx.GUEST_RIP, "rsp": vmx.GUEST_RSP, "rflags": vmx.GUEST_RFLAGS,
    "cr0": vmx.GUEST_CR0, "cr3": vmx.GUEST_CR3, "cr4": vmx.GUEST_CR4,
}  # fmt: skip
SHOWN = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8")


@pytest.mark.parametrize("flags", [0, 1])
def test_a_dump_shows_each_register_by_its_name(flags: int) -> None:
    """Of an open box all of them, of a closed one none."""
    fields = {field: 0x0102_0304_0000_0000 + number * 0x1111 for number, field in enumerate(DUMPED.values(), 1)}

    def script(guest: Guest) -> Script:
        yield Exit(REASON.GETSEC, length=3, registers=CANARIES)
        yield Exit(0x7F, qualification=0x9876_5432_1, length=2, registers=CANARIES, fields=fields)

    box = TestBox("a", b"\xf4", StartMode.LONG, flags=flags)
    text = play(script, box, ending="unknown exit").serial_text()
    dump = {
        name: int(value, 16) for name, value in re.findall(r"(\w+) (0x[0-9a-f]{16})", text.split("after 2 exits")[1])
    }
    expected = {name: fields[field] for name, field in DUMPED.items()} | {name: CANARIES[name] for name in SHOWN}
    assert dump == ({} if flags else expected | {"reason": 0x7F, "qual": 0x9876_5432_1})


def test_a_stopped_box_s_memory_is_unmapped_and_zeroed() -> None:
    """After its end nothing of a box is mapped, its frames are zero, and translations were dropped before that."""
    kept: list[tuple[int, int]] = []

    def script(guest: Guest) -> Script:
        guest.write(0x5000, b"secret" * 10)
        kept.append((guest.place(0x5000), guest[vmx.EPT_POINTER]))
        yield Exit(REASON.TRIPLE_FAULT)

    def other(guest: Guest) -> Script:
        for _ in range(4):
            yield Exit(REASON.HLT, length=1, fields={vmx.GUEST_RFLAGS: 0x202})

    machine = machine_for([TestBox("a", b"\xf4"), TestBox("b", b"\xf4\xf4")], [script, other])
    machine.run()
    place, pointer = kept[0]
    assert machine.read_physical(pointer & ~0xFFF, 8) == bytes(8)
    assert {kind for kind, _ in machine.invalidations} == {"invept", "invvpid"}
    assert machine.read_physical(place, 60) == bytes(60)


def test_registers_survive_every_way_out_and_in() -> None:
    """General registers are the guest's own through hot exits, slow exits, and what comes after them."""

    def script(guest: Guest) -> Script:
        for round_number in range(3):
            values = {name: value ^ round_number << 40 for name, value in CANARIES.items()}
            for reason in (REASON.PREEMPTION_TIMER, REASON.INVD, REASON.EXTERNAL_INTERRUPT):
                yield Exit(reason, length=2, registers=values, interruption=0x8000_003F)
                unchanged(guest, values)
            yield Exit(REASON.CPUID, length=2, registers=values | {"rax": 3})
            unchanged(guest, values, "rax", "rbx", "rcx", "rdx")
            yield Exit(REASON.PREEMPTION_TIMER, ticks=10_000_000)
            unchanged(guest, values, "rax", "rbx", "rcx", "rdx")

    play(script, LONG)


def test_host_tables_have_their_limits_back_in_the_run_loop() -> None:
    """An exit makes the limits of GDT and IDT 64 KiB; after one that is not hot they are exact again (security rule 17)."""
    from unicorn import x86_const as x86

    def script(guest: Guest) -> Script:
        yield Exit(REASON.INVD, length=2)
        engine = guest.machine.engine
        assert engine.reg_read(x86.UC_X86_REG_GDTR)[2] == GDT_ENTRIES * 8 - 1
        assert engine.reg_read(x86.UC_X86_REG_IDTR)[2] == GATE_COUNT * 16 - 1

    play(script, LONG)


def test_no_field_that_does_not_exist_is_asked_for() -> None:
    """VMREAD and VMWRITE are never refused, in a run through most handlers."""

    def script(guest: Guest) -> Script:
        for reason in (REASON.CPUID, REASON.INVD, REASON.RDMSR, REASON.WRMSR, REASON.HLT):
            yield Exit(reason, length=2, fields={vmx.GUEST_RFLAGS: 0x202})

    machine = machine_for([LONG], [script], Processor().with_msrs({manual.IA32_TSC_AUX: 0}))
    machine.run()
    assert len(machine.guests) == 1
    assert not machine.refused_accesses

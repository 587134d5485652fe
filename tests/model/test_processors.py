"""Other processors: what guests see of them, by CPUID, XCR0 and MSRs, is what the policy says of what they have."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Final

import pytest

from dsl.hw import vmx
from tests.model.processor import CPUID, SECONDARY, TSC_HZ, Processor, controls
from tests.model.start import play
from tests.model.test_exits import CANARIES, GENERAL_PROTECTION, LONG, PASSED_READS, PASSED_WRITES, unchanged
from tests.model.vmx_operation import Exit, Guest, Script
from vmm.tables import CPUID_ROWS

pytestmark = pytest.mark.t1
REASON = vmx.ExitReason
Words = tuple[int, int, int, int]
FEATURES, CACHES, STRUCTURED, XSTATE, TIME_STAMP, EXTENDED, HYPERVISOR = 1, 4, 7, 0xD, 0x15, 0x8000_0000, 0x4000_0000
EXTENDED_MOST = 0x8000_0008
RDTSCP, INVPCID, RDPID, SPEC_CTRL, OSXSAVE = 1 << 27, 1 << 10, 1 << 22, 1 << 26, 1 << 27
SIGNATURE = tuple(int.from_bytes(name, "little") for name in (b"Terr", b"aneT", b"erra"))
RANDOM = [
    leaf
    for leaf in (*range(2, 0xD), *range(0xE, 0x15), *range(0x8000_0002, 0x8000_000C))
    if leaf not in (CACHES, STRUCTURED, 0xA)
]
NO_RDTSCP, NO_INVPCID = vmx.SECONDARY_ENABLE_RDTSCP, vmx.SECONDARY_ENABLE_INVPCID


def processor(seed: int, all_ones: bool, extended: int = 0x8000_000B, gone: int = 0, basic: int = 0x20) -> Processor:
    """A processor whose leaves say something everywhere, beyond the last ones too. gone: secondary controls that it lacks."""
    words = random.Random(seed)

    def four() -> Words:
        return tuple(0xFFFF_FFFF if all_ones else words.getrandbits(32) for _ in range(4))  # type: ignore[return-value]

    cpuid: dict[tuple[int, int | None], Words] = dict(CPUID)
    cpuid[0, None] = (basic, *CPUID[0, None][1:])
    for leaf in RANDOM:
        cpuid[leaf, None] = four()
    for subleaf in range(4):
        cpuid[CACHES, subleaf] = four()
    cpuid[STRUCTURED, 0] = tuple(old | new for old, new in zip(CPUID[STRUCTURED, 0], four(), strict=True))  # type: ignore[assignment]
    for leaf in (FEATURES, 0x8000_0001):
        eax, ebx, ecx, edx = (old | new for old, new in zip(CPUID[leaf, None], four(), strict=True))
        cpuid[leaf, None] = (eax, ebx, ecx & ~OSXSAVE, edx)
    cpuid[0x8000_0008, None] = (CPUID[0x8000_0008, None][0] | 0xFFFF_0000, *four()[1:])
    cpuid[EXTENDED, None] = (extended, *four()[1:])
    cpuid[XSTATE, 1] = four()
    made = replace(Processor(), cpuid=cpuid)
    return made.with_msrs({vmx.IA32_VMX_PROCBASED_CTLS2: controls((SECONDARY[0], SECONDARY[1] & ~gone))})


def policy(made: Processor, leaf: int, subleaf: int, gone: int) -> Words:
    """What a guest sees: what the processor has, under the masks of the table, with what a virtual machine changes."""
    row = next((row for row in CPUID_ROWS if row[0] == leaf), None)
    if row is None or (leaf not in (HYPERVISOR, TIME_STAMP, XSTATE) and leaf > made.answer(leaf & EXTENDED, 0)[0]):
        return 0, 0, 0, 0
    if leaf == HYPERVISOR:
        return HYPERVISOR, *SIGNATURE  # type: ignore[return-value]
    if leaf == TIME_STAMP:
        return 1, 1, TSC_HZ, 0
    if leaf == XSTATE:
        return xstate(made, subleaf)
    if leaf == STRUCTURED and subleaf:
        return 0, 0, 0, 0
    asked = subleaf if leaf == CACHES else 0
    eax, ebx, ecx, edx = (word & mask for word, mask in zip(made.answer(leaf, asked), row[2:], strict=True))
    if leaf in (0, EXTENDED):
        eax = min(eax, EXTENDED_MOST) if leaf else TIME_STAMP
    ecx |= 1 << 31 if leaf == FEATURES else 0
    if gone & NO_RDTSCP:
        edx &= ~RDTSCP if leaf == 0x8000_0001 else ~0
        ecx &= ~RDPID if leaf == STRUCTURED else ~0
    if gone & NO_INVPCID and leaf == STRUCTURED:
        ebx &= ~INVPCID
    return eax, ebx, ecx, edx


def xstate(made: Processor, subleaf: int) -> Words:
    """Leaf Dh, for x87, SSE and AVX."""
    answer = made.answer(XSTATE, subleaf)
    if subleaf == 0:
        return 7, answer[1], made.answer(XSTATE, 0, 7)[1], 0
    if subleaf == 1:
        return answer[0] & 5, 0, 0, 0
    return (*answer[:3], 0) if subleaf == 2 else (0, 0, 0, 0)


LEAVES = [
    *range(0x23),
    *range(0x3FFF_FFFE, 0x4000_0004),
    0x7FFF_FFFF,
    *range(EXTENDED, EXTENDED + 12),
    0x8000_0022,
    0xFFFF_FFFF,
]
PROCESSORS: Final[dict[str, tuple[int, bool, int, int, int]]] = {
    "all ones": (1, True, 0x8000_000B, 0, 0x20),
    "random": (2, False, 0x8000_000B, 0, 0x20),
    "few extended leaves": (3, True, 0x8000_0004, 0, 0x20),
    "as many as are shown": (4, False, 0x8000_0008, 0, 0x20),
    "no RDTSCP": (5, True, 0x8000_000B, NO_RDTSCP, 0x20),
    "no INVPCID": (6, True, 0x8000_000B, NO_INVPCID, 0x20),
    "few basic leaves": (7, True, 0x8000_000B, 0, 4),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_cpuid_is_what_the_policy_says(name: str) -> None:
    """Every leaf and subleaf, word by word; the guest's other registers stay."""
    made, gone = processor(*PROCESSORS[name]), PROCESSORS[name][3]

    def script(guest: Guest) -> Script:
        for leaf in LEAVES:
            for subleaf in (0, 1, 2, 3, 31, 62, 63, 64, 65):
                before = CANARIES | {"rax": 0xAAAA_0000_0000_0000 | leaf, "rcx": 0xBBBB_0000_0000_0000 | subleaf}
                yield Exit(REASON.CPUID, length=2, registers=before)
                found = tuple(guest[name] for name in ("rax", "rbx", "rcx", "rdx"))
                expected = policy(made, leaf, subleaf, gone)
                if leaf == TIME_STAMP:
                    assert abs(found[2] - TSC_HZ) < 1000, "as it was measured"
                    found = (*found[:2], TSC_HZ, found[3])
                assert found == expected, (hex(leaf), subleaf)
                unchanged(guest, before, "rax", "rbx", "rcx", "rdx")

    play(script, LONG, made)


AVX512 = 0xE0
EXTENDED_STATES = [
    # what the processor has, the size of an area with AVX-512, what a guest may have
    (3, 2688, 3), (7, 2688, 7), (0xE7, 2688, 0xE7), (0xE7, 4096, 0xE7), (0xE7, 4097, 7), (0x2E7, 2696, 0xE7), (0xE3, 2688, 3),
    (0x67, 2688, 7), (0xC7, 2688, 7), (0xA7, 2688, 7), (0x1F, 2688, 7), (7 | 3 << 17, 11008, 7),
]  # fmt: skip


def with_states(has: int, size: int) -> Processor:
    """A processor with these components of extended state, and an area of this size with AVX-512."""
    parts = {5: (64, 1088), 6: (512, 1152), 7: (size - 1664, 1664), 9: (8, 8000)}
    components: dict[tuple[int, int | None], Words] = {(XSTATE, part): (*place, 0, 0) for part, place in parts.items()}
    return Processor(cpuid={**CPUID, (XSTATE, 0): (has, 0, 8008, 0), **components})


@pytest.mark.parametrize(("has", "size", "allowed"), EXTENDED_STATES)
def test_extended_states_follow_the_processor(has: int, size: int, allowed: int) -> None:
    """All three parts of AVX-512 or none, AVX below them, and only what fits a page; XSETBV takes the good values of those alone."""
    made = with_states(has, size)
    values = {bits for bits in range(0x400) if bits & 0x1F in (0, 1, 3, 7, 5, 2, 6, 0xF)} | {1 << 32 | 1, 1 << 63 | 3}
    good = {value for value in values if not value & ~allowed and is_xcr0(value)}

    def script(guest: Guest) -> Script:
        assert guest.machine.xcr0 == 1, "a guest starts with x87 alone"
        for subleaf in range(66):
            yield Exit(REASON.CPUID, length=2, registers={"rax": XSTATE, "rcx": subleaf})
            if subleaf > 1:
                here = subleaf < 64 and allowed >> subleaf & 1
                expected = (*made.answer(XSTATE, subleaf)[:3], 0) if here else (0, 0, 0, 0)
                assert tuple(guest[name] for name in ("rax", "rbx", "rcx", "rdx")) == expected, subleaf
            elif subleaf == 0:
                words = allowed, 576, {3: 576, 7: 832, 0xE7: size}[allowed], 0
                assert tuple(guest[name] for name in ("rax", "rbx", "rcx", "rdx")) == words
        for value in sorted(values):
            before = guest.machine.xcr0
            registers = {"rcx": 0, "rax": value & 0xFFFF_FFFF, "rdx": value >> 32}
            yield Exit(REASON.XSETBV, length=3, registers=registers)
            assert guest.event == (0 if value in good else GENERAL_PROTECTION), hex(value)
            assert guest.machine.xcr0 == (value if value in good else before), hex(value)

    play(script, LONG, made)


def is_xcr0(value: int) -> bool:
    """The processor's rules (SDM Vol. 1, 13.3)."""
    avx = not value & 4 or value & 2
    return bool(value & 1 and avx and (not value & AVX512 or (value & AVX512 == AVX512 and value & 4)))


@pytest.mark.parametrize("has_spec_ctrl", [False, True])
@pytest.mark.parametrize("gone", [0, NO_RDTSCP])
def test_optional_msrs_follow_the_processor(has_spec_ctrl: bool, gone: int) -> None:
    """TSC_AUX passes where RDTSCP is; SPEC_CTRL and PRED_CMD where CPUID shows them; else they are intercepted, and #GP(0)."""
    made = Processor().with_msrs({vmx.IA32_VMX_PROCBASED_CTLS2: controls((SECONDARY[0], SECONDARY[1] & ~gone))})
    if not has_spec_ctrl:
        made = made.without_features(STRUCTURED, edx=SPEC_CTRL)
    hidden = ({0xC000_0103} if gone else set()) | (set() if has_spec_ctrl else {0x48, 0x49})

    def position(number: int) -> int:
        return number if number < 0x2000 else number - 0xC000_0000 + 0x2000

    passed = {position(number) for number in PASSED_READS - hidden}
    passed |= {position(number) + 0x4000 for number in PASSED_WRITES - hidden}

    def script(guest: Guest) -> Script:
        bitmap = int.from_bytes(guest.machine.read_physical(guest[vmx.MSR_BITMAP], 4096), "little")
        assert {bit for bit in range(4096 * 8) if not bitmap >> bit & 1} == passed
        for number in sorted(hidden):
            for reason in (REASON.RDMSR, REASON.WRMSR):
                rip = guest.rip
                yield Exit(reason, length=2, registers={"rcx": number, "rax": 0, "rdx": 0})
                assert (guest.event, guest.rip) == (GENERAL_PROTECTION, rip)

    play(script, LONG, made)

"""SHA-256 and SHA-512 on general registers: one block into a state (FIPS 180-4, 6.2.2 and 6.4.2; they differ in width and counts alone).

Sums of rotations are RORX and XOR; majority is b ^ ((a ^ b) & (b ^ c)), of which the next round needs a ^ b again. Branches count, and
addresses are arguments and counters, so the time does not depend on what is hashed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from peachpy.x86_64 import (
    ADD,
    AND,
    BSWAP,
    CMP,
    JNE,
    LABEL,
    LEA,
    MOV,
    POP,
    PUSH,
    RETURN,
    ROR,
    RORX,
    SHR,
    SUB,
    XOR,
    Label,
)
from peachpy.x86_64.registers import (
    eax, ebx, ecx, edi, edx, r8, r8d, r9d, r10, r10d, r11d, r12d, r13d, r14d, r15d,
    r9, r11, r12, r13, r14, r15, rax, rbp, rbx, rcx, rdi, rdx, rsi, rsp,
)  # fmt: skip

from dsl.std.kernels.rotations import SCHEDULE, SUMS
from dsl.std.kernels.target import kernel

UNROLLED = 8  # rounds, after which each working variable is in its place again


@dataclass(frozen=True)
class Family:
    """One of the two: bits of a word, rounds, the registers of the working variables and of temporaries."""

    width: int
    rounds: int
    working: tuple[Any, ...]
    spare: tuple[Any, ...]

    @property
    def size(self) -> int:
        """Bytes of a word."""
        return self.width // 8


SHA256 = Family(32, 64, (r8d, r9d, r10d, r11d, r12d, r13d, r14d, r15d), (eax, ebx, ecx, edx, edi))
SHA512 = Family(64, 80, (r8, r9, r10, r11, r12, r13, r14, r15), (rax, rbx, rcx, rdx, rdi))


def sum_of_rotations(out: Any, value: Any, counts: tuple[int, int, int], spare: tuple[Any, Any]) -> None:
    """Set out to three rotations of value, added without carries."""
    for register, count in zip((out, *spare), counts, strict=True):
        RORX(register, value, count)
    for register in spare:
        XOR(out, register)


def one_round(family: Family, number: int, words: Any, constants: Any, more: bool) -> None:
    """One of eight rounds in a row; more: it makes the word of the schedule that is 16 further on, too.

    Two temporaries change places at each: one holds b ^ c, then the other a ^ b. The schedule's work comes last, and the last additions
    to h in the midst of it: what the next round waits for is older, so that the processor does it first.
    """
    a, b, _, d, e, f, g, h = (family.working[(place - number) % 8] for place in range(8))
    first, second, third, fourth, word = family.spare
    before, after = (third, second) if number % 2 == 0 else (second, third)
    place = words + family.size * number
    ADD(h, [constants + family.size * number])
    ADD(h, [place])
    MOV(after, f)
    XOR(after, g)
    AND(after, e)
    XOR(after, g)
    ADD(h, after)
    sum_of_rotations(first, e, SUMS[family.width][1], (fourth, word))
    ADD(h, first)
    ADD(d, h)
    sum_of_rotations(first, a, SUMS[family.width][0], (fourth, word))
    MOV(after, a)
    XOR(after, b)
    AND(before, after)
    XOR(before, b)
    if more:
        small_sigma(word, fourth, [place + family.size], SCHEDULE[family.width][0])
    ADD(h, first)
    if more:
        ADD(word, [place])
        ADD(word, [place + 9 * family.size])
    ADD(h, before)
    if more:
        small_sigma(fourth, first, [place + 14 * family.size], SCHEDULE[family.width][1])
        ADD(word, fourth)
        MOV([place + 16 * family.size], word)


def small_sigma(out: Any, value: Any, source: Any, counts: tuple[int, int, int]) -> None:
    """Set out to two rotations and a shift of the word in memory, added without carries; value is lost."""
    low, high = sorted(counts[:2])
    MOV(value, source)
    RORX(out, value, high - low)
    XOR(out, value)
    ROR(out, low)
    SHR(value, counts[2])
    XOR(out, value)


def load_words(family: Family, words: Any, block: Any) -> None:
    """The block's sixteen words, which are big-endian. RDI and the block's address are lost."""
    four_words = Label("four_words")
    LEA(rdi, [block + 16 * family.size])
    LABEL(four_words)
    for number in range(4):
        MOV(family.spare[number], [block + family.size * number])
    for number in range(4):
        BSWAP(family.spare[number])
        MOV([words + family.size * number], family.spare[number])
    ADD(words, 4 * family.size)
    ADD(block, 4 * family.size)
    CMP(block, rdi)
    JNE(four_words)
    SUB(words, 16 * family.size)


def rounds(family: Family, count: int, label: str, more: bool, words: Any, constants: Any) -> None:
    """So many rounds; more: each makes a word of the schedule too. RDI is lost."""
    eight_rounds = Label(label)
    LEA(rdi, [constants + count * family.size])
    LABEL(eight_rounds)
    PUSH(rdi)
    for number in range(UNROLLED):
        one_round(family, number, words, constants, more)
    ADD(words, UNROLLED * family.size)
    ADD(constants, UNROLLED * family.size)
    POP(rdi)
    CMP(constants, rdi)
    JNE(eight_rounds)


def compress(family: Family, name: str) -> Any:
    """Mix a block (rcx) into the state at rdi; the schedule comes to rdx; the constants are at r9."""
    with kernel(name) as function:
        PUSH(rdi)
        MOV(rsi, rdx)
        MOV(rbp, r9)
        MOV(r10, rcx)
        load_words(family, rsi, r10)
        MOV(rdi, [rsp])
        for number, register in enumerate(family.working):
            MOV(register, [rdi + family.size * number])
        MOV(family.spare[2], family.working[1])
        XOR(family.spare[2], family.working[2])
        rounds(family, family.rounds - 16, "with_schedule", True, rsi, rbp)
        rounds(family, 16, "last", False, rsi, rbp)
        POP(rdi)
        for number, register in enumerate(family.working):
            ADD([rdi + family.size * number], register)
        RETURN()
    return function


def compress256() -> Any:
    """SHA-256's."""
    return compress(SHA256, "compress256")


def compress512() -> Any:
    """SHA-512's."""
    return compress(SHA512, "compress512")

"""SHA-256 with the SHA extensions (SDM Vol. 1, 5.19): one stream, and two in turn, which hides the latency of SHA256RNDS2.

The processor wants the state as two registers, ABEF and CDGH; memory holds it so while a kernel runs. Four words of the schedule are one
register; group g of four rounds takes W[g] and makes W[g + 4] in its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from peachpy.x86_64 import (
    ADD, CMP, JA, JNE, JZ, LABEL, LEA, MOV, MOVDQA, MOVDQU, MOVQ, PADDD, PALIGNR, PBLENDW, PINSRQ, PSHUFB, PSHUFD, RETURN,
    SHA256MSG1, SHA256MSG2, SHA256RNDS2, SUB, TEST, Label,
)  # fmt: skip
from peachpy.x86_64.registers import (
    r8, r10, rax, rcx, rdi, rdx, rsp,
    xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7, xmm8, xmm9, xmm10, xmm11, xmm12, xmm13, xmm14,
)  # fmt: skip

from dsl.std.kernels.target import kernel

GROUPS = 4  # in sixteen rounds
LAST = 192  # bytes of constants before the last sixteen rounds
BIG_ENDIAN = (0x0405060700010203, 0x0C0D0E0F08090A0B)  # PSHUFB: the bytes of each word reversed


@dataclass(frozen=True)
class Stream:
    """The registers of one hash: state (ABEF, CDGH), four of the schedule, a temporary; where its state and its next block are."""

    abef: Any
    cdgh: Any
    words: tuple[Any, ...]
    spare: Any
    state: Any
    offset: int
    block: Any

    def load_state(self) -> None:
        """Take the state from memory as FIPS 180-4 has it, and leave it there as the processor wants it."""
        MOVDQU(self.abef, [self.state + self.offset])
        MOVDQU(self.cdgh, [self.state + self.offset + 16])
        PSHUFD(self.abef, self.abef, 0xB1)
        PSHUFD(self.cdgh, self.cdgh, 0x1B)
        MOVDQA(self.spare, self.abef)
        PALIGNR(self.abef, self.cdgh, 8)
        PBLENDW(self.cdgh, self.spare, 0xF0)
        self.keep_state()

    def keep_state(self) -> None:
        """Leave the state in memory until the next addition."""
        MOVDQU([self.state + self.offset], self.abef)
        MOVDQU([self.state + self.offset + 16], self.cdgh)

    def add_state(self) -> None:
        """Add what memory keeps to the state; keep the sum."""
        MOVDQU(self.words[0], [self.state + self.offset])
        MOVDQU(self.words[1], [self.state + self.offset + 16])
        PADDD(self.abef, self.words[0])
        PADDD(self.cdgh, self.words[1])
        self.keep_state()

    def store_state(self) -> None:
        """Leave the state in memory as FIPS 180-4 has it."""
        PSHUFD(self.abef, self.abef, 0x1B)
        PSHUFD(self.cdgh, self.cdgh, 0xB1)
        MOVDQA(self.spare, self.abef)
        PBLENDW(self.abef, self.cdgh, 0xF0)
        PALIGNR(self.cdgh, self.spare, 8)
        self.keep_state()

    def load_block(self, reverse: Any) -> None:
        """The block's sixteen words."""
        for index, word in enumerate(self.words):
            MOVDQU(word, [self.block + 16 * index])
            PSHUFB(word, reverse)

    def four_rounds(self, group: int, constants: Any) -> None:
        """Rounds on W[group], with their constants."""
        MOVDQU(xmm0, [constants + 16 * group])
        PADDD(xmm0, self.words[group])
        SHA256RNDS2(self.cdgh, self.abef, xmm0)
        PSHUFD(xmm0, xmm0, 0x0E)
        SHA256RNDS2(self.abef, self.cdgh, xmm0)

    def next_words(self, group: int) -> None:
        """Replace W[group] by W[group + 4]."""
        first, second, third, fourth = (self.words[(group + place) % GROUPS] for place in range(GROUPS))
        SHA256MSG1(first, second)
        MOVDQA(self.spare, fourth)
        PALIGNR(self.spare, third, 4)
        PADDD(first, self.spare)
        SHA256MSG2(first, fourth)


def hash_blocks(streams: tuple[Stream, ...], length: Any, constants: Any, reverse: Any) -> None:
    """Mix `length` bytes of each stream, a multiple of 64 that is not zero, into its state."""
    MOV(rax, BIG_ENDIAN[0])
    MOVQ(reverse, rax)
    MOV(rax, BIG_ENDIAN[1])
    PINSRQ(reverse, rax, 1)
    for stream in streams:
        stream.load_state()
    each_block, sixteen_rounds = Label("each_block"), Label("sixteen_rounds")
    LABEL(each_block)
    for stream in streams:
        stream.load_block(reverse)
    LEA(rax, [constants + LAST])
    LABEL(sixteen_rounds)
    for group in range(GROUPS):
        for stream in streams:
            stream.four_rounds(group, constants)
        for stream in streams:
            stream.next_words(group)
    ADD(constants, 16 * GROUPS)
    CMP(constants, rax)
    JNE(sixteen_rounds)
    for group in range(GROUPS):
        for stream in streams:
            stream.four_rounds(group, constants)
    SUB(constants, LAST)
    for stream in streams:
        stream.add_state()
        ADD(stream.block, 64)
    SUB(length, 64)
    JA(each_block)
    for stream in streams:
        stream.store_state()


def compress() -> Any:
    """Mix blocks (rdx, rcx bytes) into a state (rdi), with the constants at r8."""
    with kernel("compress") as function:
        done = Label("done")
        TEST(rcx, rcx)
        JZ(done)
        stream = Stream(xmm1, xmm2, (xmm3, xmm4, xmm5, xmm6), xmm7, rdi, 0, rdx)
        hash_blocks((stream,), rcx, r8, xmm8)
        LABEL(done)
        RETURN()
    return function


def compress_two() -> Any:
    """Mix blocks (rdx and r8, rcx bytes each, not 0) into two states (rdi), with the constants at the address on the stack."""
    with kernel("compress_two") as function:
        MOV(r10, [rsp + 8])
        streams = (
            Stream(xmm1, xmm2, (xmm3, xmm4, xmm5, xmm6), xmm7, rdi, 0, rdx),
            Stream(xmm8, xmm9, (xmm10, xmm11, xmm12, xmm13), xmm7, rdi, 32, r8),
        )
        hash_blocks(streams, rcx, r10, xmm14)
        RETURN()
    return function

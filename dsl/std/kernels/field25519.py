"""Arithmetic modulo p = 2**255 - 19 on four limbs of 64 bits, with MULX.

An element is any number below 2**256; every operation takes any and gives one, congruent modulo p. All kernels are straight lines: no
branch, and no address but an argument plus a constant. 2**256 is 38, and 2**255 is 19, modulo p. (Two chains of ADCX and ADOX would be no
faster than chains that follow each other closely, and Bochs 2.7 loses ADOX's carry.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from peachpy.x86_64 import (
    ADC, ADD, AND, BTR, CMOVNZ, CMOVZ, CMP, DEC, IMUL, JNE, LABEL, LEA, MOV, MULX, RETURN, SBB, SHR, SUB, TEST, XOR, Label,
)  # fmt: skip
from peachpy.x86_64.registers import (
    eax, r8, r9, r10, r11, r12, r13, r14, r15, r15d, rax, rbp, rbx, rcx, rdi, rdx, rsi,
)  # fmt: skip

from dsl.std.kernels.target import kernel

LIMBS = 4
LOW = (r8, r9, r10, r11)  # an element, or the lower half of a product
PRODUCT = (*LOW, r12, r13, r14, r15)


@dataclass(frozen=True)
class Place:
    """Where an element lies: an offset from a register."""

    base: Any
    offset: int = 0

    def __getitem__(self, limb: int) -> list[Any]:
        return [self.base + (self.offset + 8 * limb)]


def load(value: Place) -> None:
    """LOW becomes the element."""
    for limb, register in enumerate(LOW):
        MOV(register, value[limb])


def store(out: Place) -> None:
    """The element in LOW goes to memory."""
    for limb, register in enumerate(LOW):
        MOV(out[limb], register)


def add_row(target: tuple[Any, ...], factor: Callable[[int], Any], spare: tuple[Any, ...]) -> None:
    """Add RDX times four limbs to four words; the fifth is made here. MULX leaves the carry alone. Uses RAX and three registers more."""
    highs = (*spare, target[4])
    for limb in range(LIMBS):
        MULX(highs[limb], rax, factor(limb))
        (ADC if limb else ADD)(target[limb], rax)
    ADC(target[4], 0)
    for limb in range(3):
        (ADC if limb else ADD)(target[limb + 1], spare[limb])
    ADC(target[4], 0)


def multiply_into_product(left: Place, right: Place) -> None:
    """PRODUCT becomes left * right. RSI is lost, after the last use of left, whose place it may be."""
    MOV(rdx, left[0])
    MULX(r9, r8, right[0])
    MULX(r10, rax, right[1])
    ADD(r9, rax)
    MULX(r11, rax, right[2])
    ADC(r10, rax)
    MULX(r12, rax, right[3])
    ADC(r11, rax)
    ADC(r12, 0)
    for limb in range(1, LIMBS):
        MOV(rdx, left[limb])
        add_row(PRODUCT[limb : limb + 5], lambda other: right[other], (rbx, rcx, r15 if limb < 3 else rsi))


def square_into_product(value: Place) -> None:
    """PRODUCT becomes value * value: products of different limbs once, doubled, and the squares of limbs."""
    MOV(rdx, value[0])
    MULX(r10, r9, value[1])
    MULX(r11, rax, value[2])
    ADD(r10, rax)
    MULX(r12, rax, value[3])
    ADC(r11, rax)
    ADC(r12, 0)
    MOV(rdx, value[1])
    MULX(rbx, rax, value[2])
    MULX(r13, rcx, value[3])
    ADD(r11, rax)
    ADC(r12, rbx)
    ADC(r13, 0)
    MOV(rdx, value[2])
    MULX(r14, rax, value[3])
    ADD(r12, rcx)
    ADC(r13, rax)
    ADC(r14, 0)
    XOR(r15d, r15d)
    ADD(r9, r9)
    for register in PRODUCT[2:]:
        ADC(register, 0 if register == r15 else register)
    MOV(rdx, value[0])
    MULX(rbx, r8, rdx)
    ADD(r9, rbx)
    for limb in range(1, LIMBS):
        MOV(rdx, value[limb])
        MULX(rbx, rax, rdx)
        ADC(PRODUCT[2 * limb], rax)
        ADC(PRODUCT[2 * limb + 1], rbx)


def reduce_product() -> None:
    """LOW becomes PRODUCT modulo p, below 2**255 + 1463."""
    MOV(rdx, 38)
    high = PRODUCT[LIMBS:]
    add_row((*LOW, r12), lambda limb: high[limb], (rbx, rcx, r13))
    fold_top()


def fold_top() -> None:
    """What of R12:LOW reaches 2**255 comes down; R12 is at most 38 and gets lost."""
    MOV(rax, r11)
    SHR(rax, 63)
    LEA(rax, [rax + r12 * 2])
    BTR(r11, 63)
    IMUL(rax, rax, 19)
    ADD(r8, rax)
    ADC(r9, 0)
    ADC(r10, 0)
    ADC(r11, 0)


def multiply(out: Place, left: Place, right: Place) -> None:
    """Set out to left * right."""
    multiply_into_product(left, right)
    reduce_product()
    store(out)


def square(out: Place, value: Place) -> None:
    """Set out to value * value."""
    square_into_product(value)
    reduce_product()
    store(out)


def fold_carry(first: Any, then: Any) -> None:
    """Where LOW went beyond its end (the carry flag), take 38 in, or out: ADD and ADC, or SUB and SBB."""
    take_carry(first)
    for register in LOW[1:]:
        then(register, 0)


def take_carry(first: Any) -> None:
    """The same where the lowest limb does not overflow again."""
    SBB(rax, rax)
    AND(eax, 38)
    first(r8, rax)


def add(out: Place, left: Place, right: Place, settled: bool = False) -> None:
    """Set out to left + right. settled: both are products, below 2**255 + 2**23, and one small carry is all there can be."""
    load(left)
    for limb, register in enumerate(LOW):
        (ADC if limb else ADD)(register, right[limb])
    if not settled:
        fold_carry(ADD, ADC)
    take_carry(ADD)
    store(out)


def subtract(out: Place, left: Place, right: Place, settled: bool = False) -> None:
    """Set out to left - right. settled: right is a product, so that what is below zero is far above -2**256."""
    load(left)
    for limb, register in enumerate(LOW):
        (SBB if limb else SUB)(register, right[limb])
    fold_carry(SUB, SBB)
    if not settled:
        take_carry(SUB)
    store(out)


# the kernels


def field_multiply() -> Any:
    """Set out (rdi) to left (rsi) * right (rdx)."""
    with kernel("field_multiply") as function:
        MOV(rbp, rdx)
        multiply(Place(rdi), Place(rsi), Place(rbp))
        RETURN()
    return function


def field_square() -> Any:
    """Set out (rdi) to the square of value (rsi)."""
    with kernel("field_square") as function:
        square(Place(rdi), Place(rsi))
        RETURN()
    return function


def field_add() -> Any:
    """Set out (rdi) to left (rsi) + right (rdx)."""
    with kernel("field_add") as function:
        add(Place(rdi), Place(rsi), Place(rdx))
        RETURN()
    return function


def field_subtract() -> Any:
    """Set out (rdi) to left (rsi) - right (rdx)."""
    with kernel("field_subtract") as function:
        subtract(Place(rdi), Place(rsi), Place(rdx))
        RETURN()
    return function


# X25519: a step of the ladder (RFC 7748, section 5), on twelve elements side by side

X1, X2, Z2, X3, Z3, A, B, C, D, E, F, G = (Place(rdi, 32 * number) for number in range(12))
CURVE_CONSTANT = 121665  # (486662 - 2) / 4


def choose(out: Place, zero: Place, other: Place) -> None:
    """Set out to one of two elements: to `zero` where the flags say so."""
    for limb in range(LIMBS):
        MOV(rax, zero[limb])
        CMOVNZ(rax, other[limb])
        MOV(out[limb], rax)


def multiply_by_constant(out: Place, value: Place) -> None:
    """Set out to CURVE_CONSTANT * value."""
    MOV(rdx, CURVE_CONSTANT)
    MULX(r9, r8, value[0])
    MULX(r10, rax, value[1])
    ADD(r9, rax)
    MULX(r11, rax, value[2])
    ADC(r10, rax)
    MULX(r12, rax, value[3])
    ADC(r11, rax)
    ADC(r12, 0)
    fold_top()
    store(out)


def ladder_step() -> Any:
    """One step on the elements at rdi, swapped if rsi is not 0. Two long chains of products take turns: the processor works on both."""
    with kernel("ladder_step") as function:
        add(A, X2, Z2, settled=True)
        subtract(D, X3, Z3, settled=True)
        subtract(B, X2, Z2, settled=True)
        add(C, X3, Z3, settled=True)
        TEST(rsi, rsi)
        choose(F, A, C)
        choose(G, B, D)
        multiply(D, D, A)
        square(F, F)
        multiply(C, C, B)
        square(G, G)
        add(A, D, C, settled=True)
        subtract(B, D, C, settled=True)
        subtract(E, F, G, settled=True)
        square(X3, A)
        multiply_by_constant(C, E)
        square(B, B)
        add(C, C, F, settled=True)
        multiply(X2, F, G)
        multiply(Z3, B, X1)
        multiply(Z2, E, C)
        RETURN()
    return function


# Ed25519: an entry of the base point's table

ENTRY_WORDS = 12
ENTRY = (r8, r9, r10, r11, r12, r13, r14, r15, rax, rbx, rcx, rbp)


def select_entry() -> Any:
    """Set twelve words at rdi to entry rcx of those at rsi, which are rdx words. All entries are read, in order."""
    with kernel("select_entry") as function:
        each_entry = Label("each_entry")
        LEA(rax, [rsi + rdx * 8])
        MOV([rdi], rax)  # where the entries end: no register is left for it
        MOV(rdx, rcx)
        LABEL(each_entry)
        TEST(rdx, rdx)
        for word, register in enumerate(ENTRY):
            CMOVZ(register, [rsi + 8 * word])
        DEC(rdx)
        ADD(rsi, 8 * ENTRY_WORDS)
        CMP(rsi, [rdi])
        JNE(each_entry)
        for word, register in enumerate(ENTRY):
            MOV([rdi + 8 * word], register)
        RETURN()
    return function

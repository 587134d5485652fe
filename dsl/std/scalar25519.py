"""Arithmetic on secret scalars modulo L, the order of Ed25519's base point (RFC 8032, 5.1), in constant time.

A scalar is four little-endian 64-bit words.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import (
    Array,
    Secret,
    add_with_carry,
    as_secret,
    frame_array,
    machine,
    multiply_wide,
    secret,
    subtract_with_borrow,
    table,
    u8,
    u64,
    upto,
)

ORDER: Final = (1 << 252) + 27742317777372353535851937790883648493
DIGIT_COUNT: Final = 254
DIGIT_SIGN: Final = 0x80
SIGN_COUNT: Final = 255


def words_of(number: int, count: int) -> list[int]:
    """A number as `count` little-endian words, for tables (ordinary Python)."""
    return [number >> (64 * index) & ((1 << 64) - 1) for index in range(count)]


FACTOR_WORDS: Final = 5  # the longest that is multiplied or subtracted
WIDE_WORDS: Final = 8  # a digest; a product before it is reduced has up to 10
ORDER_WORDS: Final = table(u64, words_of(ORDER, 5))
ALL_SIGNS: Final = table(u64, words_of(((1 << 255) - 1) % ORDER, 4))
BARRETT_FACTOR: Final = table(u64, words_of((1 << 512) // ORDER, 5))


@machine
def scalar_load(words: Array[Secret[u64]], encoded: Array[Secret[u8]]) -> None:
    """Read little-endian bytes, eight for each word."""
    for index in upto(words.length, at_most=WIDE_WORDS):
        words[index] = encoded.load_u64(index * 8)


@machine
def scalar_store(encoded: Array[Secret[u8]], words: Array[Secret[u64]]) -> None:
    """Write little-endian bytes, eight for each word."""
    for index in upto(words.length, at_most=WIDE_WORDS):
        encoded.store_u64(index * 8, words[index])


@machine
def multiply_words(product: Array[Secret[u64]], left: Array[Secret[u64]], right: Array[Secret[u64]]) -> None:
    """Add left * right to product, which has as many words as both and is below 2**(64 * right.length)."""
    for i in upto(left.length, at_most=FACTOR_WORDS):
        carry = secret(u64(0))
        for j in upto(right.length, at_most=FACTOR_WORDS):
            # left * right + product + carry is at most 2**128 - 1: the high word cannot overflow.
            wide = multiply_wide(left[i], right[j])
            with_old = add_with_carry(product[i + j], wide.low, secret(u64(0)))
            with_carry = add_with_carry(with_old.value, carry, secret(u64(0)))
            product[i + j] = with_carry.value
            carry = wide.high + with_old.carry + with_carry.carry
        product[i + right.length] = carry


@machine
def add_words(left: Array[Secret[u64]], right: Array[Secret[u64]], mask: Secret[u64]) -> None:
    """Add right & mask, over left.length words; the sum fits."""
    carry = secret(u64(0))
    for index in upto(left.length, at_most=FACTOR_WORDS):
        total = add_with_carry(left[index], right[index] & mask, carry)
        left[index] = total.value
        carry = total.carry


@machine
def subtract_words(left: Array[Secret[u64]], right: Array[Secret[u64]], mask: Secret[u64]) -> Secret[u64]:
    """Subtract right & mask from left, over left.length words; the borrow (0 or 1) is the result."""
    borrow = secret(u64(0))
    for index in upto(left.length, at_most=FACTOR_WORDS):
        difference = subtract_with_borrow(left[index], right[index] & mask, borrow)
        left[index] = difference.value
        borrow = difference.carry
    return borrow


@machine
def subtract_order_once(words: Array[Secret[u64]]) -> None:
    """Take L from five words that are at least L; leave smaller ones as they are."""
    trial = frame_array(Secret[u64], 5)
    trial.copy_from(words)
    borrow = subtract_words(trial, as_secret(ORDER_WORDS), ~secret(u64(0)))
    _ = subtract_words(words, as_secret(ORDER_WORDS), borrow - 1)


@machine
def scalar_reduce(out: Array[Secret[u64]], wide: Array[Secret[u64]]) -> None:
    """Set out to wide modulo L: four words from eight. Barrett's method (Handbook of Applied Cryptography, 14.42)."""
    quotient = frame_array(Secret[u64], 10)
    multiply_words(quotient, wide.slice(3, 5), as_secret(BARRETT_FACTOR))
    multiple = frame_array(Secret[u64], 10)
    multiply_words(multiple, quotient.slice(5, 5), as_secret(ORDER_WORDS))
    rest = frame_array(Secret[u64], 5)
    rest.copy_from(wide.slice(0, 5))
    _ = subtract_words(rest, multiple.slice(0, 5), ~secret(u64(0)))  # modulo 2**320
    # Below 2 L: the quotient is short of wide / L by less than 1 for its own fraction, 0.23 for BARRETT_FACTOR's (2**512 / L has
    # that one), and 2**-59 for the words of wide that were left out.
    subtract_order_once(rest)
    out.copy_from(rest.slice(0, 4))


@machine
def scalar_reduce_hash(out: Array[Secret[u64]], digest: Array[Secret[u8]]) -> None:
    """Set out to a 64-byte digest, little-endian, modulo L."""
    wide = frame_array(Secret[u64], 8)
    scalar_load(wide, digest)
    scalar_reduce(out, wide)


@machine
def scalar_multiply_add(
    out: Array[Secret[u64]], left: Array[Secret[u64]], right: Array[Secret[u64]], addend: Array[Secret[u64]]
) -> None:
    """Set out to left * right + addend modulo L; left and right below 2**255, addend below 2**256."""
    wide = frame_array(Secret[u64], 8)
    wide.slice(0, 4).copy_from(addend)
    multiply_words(wide, left, right)
    scalar_reduce(out, wide)


@machine
def scalar_is_reduced(words: Array[Secret[u64]]) -> Secret[u64]:
    """1 if four words are below L, else 0."""
    trial = frame_array(Secret[u64], 4)
    trial.copy_from(words)
    borrow = subtract_words(trial, as_secret(ORDER_WORDS), ~secret(u64(0)))
    return borrow


@machine
def scalar_signed_bits(bits: Array[Secret[u8]], words: Array[Secret[u64]]) -> None:
    """Write a scalar below 2**255 modulo L as 255 signs, lowest first: the sum of 2**i where bits[i] is 1, of -2**i where it is 0.

    That sum is 2 n - (2**255 - 1) where the bits are those of n, so n is half of (the scalar + 2**255 - 1), or of that + L, modulo L.
    """
    number = frame_array(Secret[u64], 4)
    number.copy_from(words)
    add_words(number, as_secret(ALL_SIGNS), ~secret(u64(0)))
    add_words(number, as_secret(ORDER_WORDS), secret(u64(0)) - (number[0] & 1))
    for index in upto(SIGN_COUNT):
        place = index + 1
        bits[index] = ((number[place >> 6] >> (place & 63)) & 1).truncate(u8)


@machine
def scalar_digits(digits: Array[u8], words: Array[u64]) -> None:
    """Write a public scalar below 2**253 as digits, lowest first, over zeros: at most every fourth is not zero.

    A digit is 0, 1, 3, 5 or 7, with DIGIT_SIGN where it is negative. The scalar is the sum of digits[i] * 2**i.
    """
    rest = frame_array(u64, 4)
    rest.copy_from(words.slice(0, 4))
    for index in upto(DIGIT_COUNT):
        low = rest[0] & 15
        if low & 1 == 1:
            digits[index] = low.truncate(u8)
            rest[0] -= low
            if low > 8:
                digits[index] = (16 - low).truncate(u8) | DIGIT_SIGN
                add_sixteen(rest)
        for word in upto(3):
            rest[word] = (rest[word] >> 1) | (rest[word + 1] << 63)
        rest[3] >>= 1


@machine
def add_sixteen(words: Array[u64]) -> None:
    """Add 16 to four words."""
    carry = u64(16)
    for index in upto(4):
        total = add_with_carry(words[index], carry, u64(0))
        words[index] = total.value
        carry = total.carry

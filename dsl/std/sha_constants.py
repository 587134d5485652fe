"""The constants of SHA-2 from their definition (FIPS 180-4, 4.2 and 5.3): fractional parts of roots of the first primes.

Ordinary Python, run when the tables are built; emits no code.
"""

from __future__ import annotations


def first_primes(count: int) -> list[int]:
    """The first `count` primes, in order."""
    primes: list[int] = []
    candidate = 2
    while len(primes) < count:
        if all(candidate % prime for prime in primes):
            primes.append(candidate)
        candidate += 1
    return primes


def integer_root(value: int, degree: int) -> int:
    """The largest integer whose power `degree` does not exceed `value`."""
    low, high = 0, 1 << (value.bit_length() // degree + 1)
    while low + 1 < high:
        middle = (low + high) // 2
        if middle**degree <= value:
            low = middle
        else:
            high = middle
    return low


def root_fractions(degree: int, count: int, width: int) -> list[int]:
    """The first `width` bits of the fractional parts of the roots of the first `count` primes."""
    return [integer_root(prime << (degree * width), degree) % (1 << width) for prime in first_primes(count)]

"""The monitor's random bytes: the generator of dsl.std.random, started from the monitor's sealing secret among its sources.

Without a working RDSEED or RDRAND there are no random bytes: nothing here goes on with less.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import Array, Failure, Secret, Struct, array, erase, machine, static, u8
from dsl.std.random import NO_GENERATOR, RandomState, random_fill, random_start


class Entropy(Struct):
    """The monitor's generator. Reached by one CPU at a time."""

    state: RandomState
    is_started: bool
    padding: Array[u8] = array(7)


ENTROPY: Final = static(Entropy)


@machine
def prepare_entropy(seed: Array[Secret[u8]]) -> None:
    """Start the generator. Where the processor has none that works, every request fails later: not all boxes ask."""
    started = random_start(ENTROPY.state, seed)
    ENTROPY.is_started = not isinstance(started, Failure)


@machine
def random_bytes(out: Array[u8]) -> Failure | None:
    """Fill `out` with random bytes. On failure (see dsl.std.random) it is unchanged."""
    if not ENTROPY.is_started:
        return Failure(NO_GENERATOR)
    return random_fill(ENTROPY.state, out)


@machine
def forget_entropy() -> None:
    """Erase the generator: nothing runs any more."""
    erase(ENTROPY)

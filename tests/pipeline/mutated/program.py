"""A small program for the tests of `mutate`."""

from __future__ import annotations

from dsl.lang import Array, machine, u8, u64, upto


@machine
def largest_below(data: Array[u8], limit: u64) -> u64:
    """The largest byte below a limit; 0 if there is none."""
    largest = u64(0)
    for index in upto(data.length):
        byte = u64(data[index])
        if byte < limit and byte > largest:
            largest = byte
    return largest

"""What SHA-256 and SHA-512 share: how a block is filled and padded, and what their kernels do to it (FIPS 180-4, 5.1, 6.2.2, 6.4.2)."""

from __future__ import annotations

from typing import Any, Final

from dsl.lang import Array, Secret, Struct, address_of, machine, minimum, secret, u8, u64
from dsl.lang.model import current_machine
from dsl.std.kernels.rotations import SCHEDULE, SUMS

PAD: Final = 0x80  # the byte after a message


@machine
def fill_block(block: Array[Secret[u8]], filled: u64, data: Array[Secret[u8]]) -> u64:
    """Move as much of data as still fits into a block that has `filled` bytes; how much that is."""
    taken = minimum(block.length - filled, data.length)
    block.slice(filled, taken).copy_from(data.slice(0, taken))
    return taken


@machine
def pad_block(block: Array[Secret[u8]], filled: u64) -> None:
    """End the message in a block that has `filled` bytes of it: zeros to the end of the block."""
    block[filled] = secret(u8(PAD))
    block.slice(filled + 1, block.length - 1 - filled).fill(secret(u8(0)))


def compress_in_python(
    width: int, state: Array[Any], schedule: Struct, block: Array[Any], constants: Array[Any]
) -> None:
    """What a kernel does, in ordinary Python: expand a block to the schedule, and mix it into the state."""
    memory, size, mask = current_machine().memory, width // 8, (1 << width) - 1

    def load(place: Any, count: int, order: Any = "little") -> list[int]:
        content = memory.read(int(address_of(place)), count * size)
        return [int.from_bytes(content[at : at + size], order) for at in range(0, count * size, size)]

    def store(place: Any, words: list[int]) -> None:
        memory.write(int(address_of(place)), b"".join(word.to_bytes(size, "little") for word in words))

    def rotated(word: int, *counts: int) -> int:
        total = 0
        for count in counts:
            total ^= (word >> count | word << width - count) & mask
        return total

    rounds = int(constants.length)
    words = load(block, 16, "big")
    (first, second, shift), (third, fourth, far_shift) = SCHEDULE[width]
    for at in range(16, rounds):
        near = rotated(words[at - 15], first, second) ^ words[at - 15] >> shift
        far = rotated(words[at - 2], third, fourth) ^ words[at - 2] >> far_shift
        words.append((words[at - 16] + near + words[at - 7] + far) & mask)
    before = load(state, 8)
    a, b, c, d, e, f, g, h = before
    for word, constant in zip(words, load(constants, rounds), strict=True):
        one = h + rotated(e, *SUMS[width][1]) + (e & f ^ ~e & g) + constant + word
        two = rotated(a, *SUMS[width][0]) + (a & b ^ a & c ^ b & c)
        a, b, c, d, e, f, g, h = (one + two) & mask, a, b, c, (d + one) & mask, e, f, g
    store(schedule, words)
    store(state, [(old + new) & mask for old, new in zip(before, (a, b, c, d, e, f, g, h), strict=True)])

"""A ring of bytes between a device and the console: one writer, one reader."""

from __future__ import annotations

from typing import Final

from dsl.lang import Array, Struct, array, machine, u8, u64

RING_SIZE: Final = 2048  # bytes; a power of two


class ByteRing(Struct):
    """Bytes on their way. The counts only grow; the writer owns `written`, the reader owns `taken`."""

    written: u64
    taken: u64
    bytes: Array[u8] = array(RING_SIZE)


@machine
def ring_reset(ring: ByteRing) -> None:
    """Empty the ring."""
    ring.written = u64(0)
    ring.taken = u64(0)


@machine
def ring_count(ring: ByteRing) -> u64:
    """Return how many bytes wait."""
    return ring.written - ring.taken


@machine
def ring_room(ring: ByteRing) -> u64:
    """Return how many bytes fit."""
    return u64(RING_SIZE) - (ring.written - ring.taken)


@machine
def ring_push(ring: ByteRing, value: u8) -> bool:
    """Append a byte; False, and nothing done, when the ring is full."""
    if ring_room(ring) == 0:
        return False
    ring.bytes[ring.written & (RING_SIZE - 1)] = value
    ring.written += 1
    return True


@machine
def ring_peek(ring: ByteRing, offset: u64) -> u8:
    """Return the byte `offset` places behind the oldest; the caller knows that it is there."""
    return ring.bytes[(ring.taken + offset) & (RING_SIZE - 1)]


@machine
def ring_take(ring: ByteRing) -> u8:
    """Remove and return the oldest byte; the caller knows that there is one."""
    value = ring.bytes[ring.taken & (RING_SIZE - 1)]
    ring.taken += 1
    return value

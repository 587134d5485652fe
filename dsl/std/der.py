"""A small DER writer (X.690) that leaves named holes, for templates. Ordinary Python, run at build time; emits no code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
OBJECT_IDENTIFIER: Final = 0x06
ENUMERATED: Final = 0x0A
PRINTABLE_STRING: Final = 0x13
UTC_TIME: Final = 0x17
GENERALIZED_TIME: Final = 0x18
SEQUENCE: Final = 0x30
SET: Final = 0x31


@dataclass(frozen=True, slots=True)
class Encoded:
    """Finished bytes, zero where a hole is, and each hole's name, offset and size."""

    content: bytes
    holes: tuple[tuple[str, int, int], ...] = ()

    def __add__(self, other: Encoded) -> Encoded:
        moved = tuple((name, offset + len(self.content), size) for name, offset, size in other.holes)
        return Encoded(self.content + other.content, self.holes + moved)

    def offset(self, name: str, size: int, occurrence: int = 0) -> int:
        """Where the hole of that name is; its size must be as the caller thinks."""
        places = [(offset, length) for hole, offset, length in self.holes if hole == name]
        if occurrence >= len(places):
            raise ValueError(f"hole {name!r}: expected at least {occurrence + 1}, found {len(places)}")
        offset, length = places[occurrence]
        if length != size:
            raise ValueError(f"hole {name!r}: expected {size} bytes, found {length}")
        return offset


def hole(name: str, size: int) -> Encoded:
    """Bytes that machine code will fill in."""
    return Encoded(bytes(size), ((name, 0, size),))


def length_octets(length: int) -> bytes:
    """The definite form, as short as it goes."""
    if length < 0x80:
        return bytes([length])
    digits = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(digits)]) + digits


def element(tag: int, *parts: Encoded | bytes) -> Encoded:
    """A tagged element around its parts."""
    inside = Encoded(b"")
    for part in parts:
        inside += part if isinstance(part, Encoded) else Encoded(part)
    return Encoded(bytes([tag]) + length_octets(len(inside.content))) + inside


def explicit(number: int, *parts: Encoded | bytes) -> Encoded:
    """A context-specific constructed element, as EXPLICIT tags are."""
    return element(0xA0 | number, *parts)


def base128(number: int) -> bytes:
    """An arc of an object identifier: seven bits a byte, the last with the top bit clear."""
    digits = [number & 0x7F]
    while number := number >> 7:
        digits.append(number & 0x7F | 0x80)
    return bytes(reversed(digits))


def object_identifier(dotted: str) -> Encoded:
    """An OBJECT IDENTIFIER from its dotted text."""
    first, second, *rest = (int(arc) for arc in dotted.split("."))
    return element(OBJECT_IDENTIFIER, b"".join(base128(arc) for arc in (40 * first + second, *rest)))


def extension(dotted: str, value: Encoded, *, critical: bool) -> Encoded:
    """An X.509 extension (RFC 5280, 4.2) around its DER value."""
    flag = b"\x01\x01\xff" if critical else b""
    return element(SEQUENCE, object_identifier(dotted), flag, element(OCTET_STRING, value))

"""A strict reader of the little DER (X.690) that the verifier reads itself, and a writer of what the release chain needs.

Strict: definite minimal lengths, minimal integers, no bytes left over. Everything else is a DerError.
"""

from __future__ import annotations

INTEGER, OCTET_STRING, ENUMERATED, UTF8_STRING, SEQUENCE = 0x02, 0x04, 0x0A, 0x0C, 0x30
EXPLICIT = 0xA0  # constructed, context-specific: plus the tag's number


class DerError(ValueError):
    """Bytes that are not strict DER, or not the element that was expected."""


def take(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """Split off an element with this tag: its content, and what follows it."""
    if len(data) < 2:
        raise DerError(f"expected tag {tag:#04x}, found the end")
    if data[0] != tag:
        raise DerError(f"expected tag {tag:#04x}, found {data[0]:#04x}")
    length, start = data[1], 2
    if length >= 0x80:
        count = length - 0x80
        if not 1 <= count <= 4 or len(data) < 2 + count:
            raise DerError(f"expected a definite length of at most 4 bytes, found {data[1]:#04x}")
        length, start = int.from_bytes(data[2 : 2 + count], "big"), 2 + count
        if length < 0x80 or length >> (8 * (count - 1)) == 0:
            raise DerError(f"expected a minimal length, found {length} in {count} bytes")
    if len(data) < start + length:
        raise DerError(f"expected {length} bytes of content, found {len(data) - start}")
    return data[start : start + length], data[start + length :]


def only(data: bytes, tag: int) -> bytes:
    """The content of the one element that the bytes are."""
    content, rest = take(data, tag)
    if rest:
        raise DerError(f"expected nothing after the element, found {len(rest)} bytes")
    return content


def number(content: bytes) -> int:
    """The value of an INTEGER or ENUMERATED that is not negative."""
    if not content or content[0] & 0x80:
        raise DerError(f"expected a number that is not negative, found {content.hex() or 'nothing'}")
    if len(content) > 1 and content[0] == 0 and not content[1] & 0x80:
        raise DerError(f"expected a minimal number, found {content.hex()}")
    return int.from_bytes(content, "big")


def element(tag: int, content: bytes) -> bytes:
    """An element as bytes."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    width = (size.bit_length() + 7) // 8
    return bytes([tag, 0x80 + width]) + size.to_bytes(width, "big") + content


def integer(value: int) -> bytes:
    """An INTEGER that is not negative."""
    return element(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))

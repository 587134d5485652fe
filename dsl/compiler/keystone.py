"""Keystone, wrapped: text to bytes for what PeachPy lacks, with the traps that it falls into refused by name."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final

REFUSED: Final = (
    (
        re.compile(r"\bpush\s+(0x[89a-f][0-9a-f]{7}|-?\d{10,})\b", re.I),
        "push of an immediate beyond 31 bits becomes a 16-bit push",
    ),
    (
        re.compile(r"\bmov\s+[abcd]h\s*,\s*(r\d+b|[sd]il|[sb]pl)\b", re.I),
        "a high-byte register with a REX register ends the process",
    ),
    (re.compile(r"^\s*\.section\b", re.I | re.M), "sections are not supported and give no bytes"),
    (re.compile(r"\biret\b(?!q|d)", re.I), "iret in 64-bit mode is the 16-bit form: write iretq"),
)


class AssemblyError(Exception):
    """Text that Keystone rejects, or that it is known to assemble wrongly."""


@cache
def _engine() -> Any:
    import keystone

    return keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64)


@cache
def assemble(text: str, address: int = 0) -> bytes:
    """The bytes of Intel-syntax text at an address. Statements are separated by newlines or semicolons."""
    for pattern, reason in REFUSED:
        if pattern.search(text):
            raise AssemblyError(f"{text.strip()!r}: {reason}")
    import keystone

    try:
        encoding, _ = _engine().asm(text, address)
    except keystone.KsError as error:
        raise AssemblyError(f"{text.strip()!r}: {error}") from None
    if not encoding:
        raise AssemblyError(f"{text.strip()!r}: no bytes")
    return bytes(encoding)

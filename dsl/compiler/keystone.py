"""Keystone, wrapped: text to bytes for what PeachPy lacks, with the traps that it falls into refused by name."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final

REFUSED: Final = {
    # what: why
    r"\bpush\s+(0x[89a-f][0-9a-f]{7}|-?\d{10,})\b": "push of an immediate beyond 31 bits becomes a 16-bit push",
    r"\bmov\s+[abcd]h\s*,\s*(r\d+b|[sd]il|[sb]pl)\b": "a high-byte register with a REX register ends the process",
    r"^\s*\.section\b": "sections are not supported and give no bytes",
    r"\biret\b(?!q|d)": "iret in 64-bit mode is the 16-bit form: write iretq",
}


class AssemblyError(Exception):
    """Text that Keystone rejects or is known to assemble wrongly, or whose bytes are not what it asks for."""


@cache
def _engine(mode: int) -> Any:
    import keystone

    return keystone.Ks(
        keystone.KS_ARCH_X86, {16: keystone.KS_MODE_16, 32: keystone.KS_MODE_32, 64: keystone.KS_MODE_64}[mode]
    )


@cache
def assemble(text: str, address: int = 0, mode: int = 64) -> bytes:
    """The bytes of Intel-syntax text at an address. Statements are separated by newlines or semicolons."""
    import keystone

    for pattern, reason in REFUSED.items():
        if mode == 64 and re.search(pattern, text, re.I | re.M):
            raise AssemblyError(f"{text.strip()!r}: {reason}")
    try:
        encoding, _ = _engine(mode).asm(text, address)
    except keystone.KsError as error:
        raise AssemblyError(str(error)) from None
    if not encoding:
        raise AssemblyError("the assembler returned nothing")
    return bytes(encoding)

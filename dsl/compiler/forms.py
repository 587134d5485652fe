"""The closed table of instruction forms that the selector may use, and who encodes each.

A shape is one letter an operand: r register, m memory, i immediate, c the register cl. The width is that of the first operand; where
the second operand of a form has another width (extensions), `source_widths` names it. Privileged, string and LOCK forms are not here:
they come from the rows of dsl.lang.intrinsics, as text, through Keystone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dsl.compiler.machine import CONDITIONS

WIDE: Final = (32, 64)
ALL: Final = (8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Form:
    """How a mnemonic may be used: operand shapes, widths of the first operand, widths of the second if they differ, and its encoder."""

    shapes: tuple[str, ...]
    widths: tuple[int, ...] = WIDE
    source_widths: tuple[int, ...] = ()
    encoder: str = "peachpy"


_ARITHMETIC = Form(("rr", "rm", "mr", "ri", "mi"), ALL)
_SOURCE = Form(("rr", "rm"))
FORMS: Final[dict[str, Form]] = {
    **dict.fromkeys(("add", "sub", "and", "or", "xor", "cmp", "mov", "adc", "sbb"), _ARITHMETIC),
    "test": Form(("rr", "ri"), ALL),
    **dict.fromkeys(("shl", "shr", "sar"), Form(("ri",))),
    **dict.fromkeys(("rol", "ror"), Form(("ri", "rc"), ALL)),
    "movzx": Form(("rr", "rm"), (32,), (8, 16)),
    "movsx": Form(("rr", "rm"), WIDE, (8, 16)),
    "movsxd": Form(("rr", "rm"), (64,), (32,)),
    "lea": Form(("rm",)),
    **dict.fromkeys(("lzcnt", "tzcnt", "popcnt"), _SOURCE),
    **dict.fromkeys(("shlx", "shrx", "sarx"), Form(("rrr", "rmr"))),
    "rorx": Form(("rri", "rmi")),
    "andn": Form(("rrr", "rrm")),
    "mulx": Form(("rrr", "rrm"), (64,)),
    "imul": _SOURCE,
    # PeachPy emits imul with an immediate of 128 to 255 as a sign-extended byte: wrong, so this form is not its to encode
    "imul3": Form(("rri",), encoder="keystone"),
    **dict.fromkeys(("neg", "not", "bswap", "div", "idiv"), Form(("r",))),
    **dict.fromkeys(("push", "pop"), Form(("r", "m"), (64,))),
    "xchg": Form(("rr",), (64,)),
    **{f"set{condition}": Form(("r",), (8,)) for condition in CONDITIONS},
    **{f"cmov{condition}": Form(("rr", "rm")) for condition in CONDITIONS},
    **dict.fromkeys(("cdq", "cqo", "ret", "ud2"), Form(("",))),
}


class FormError(Exception):
    """An instruction that the table of forms does not allow, or that an encoder is known to get wrong: a defect of the compiler."""

"""The closed table of instruction forms that the selector may use: who encodes each, and what each does with operands and flags.

A shape is one letter an operand: r register, m memory, i immediate, c the register cl. The width is that of the first operand; where
the second operand of a form has another width (extensions), `source_widths` names it. Privileged, string and LOCK forms are not here:
they come from the rows of dsl.lang.intrinsics, as text, through Keystone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CONDITIONS: Final = ("o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g")
WIDE: Final = (32, 64)
ALL: Final = (8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Form:
    """How a mnemonic may be used.

    roles: what becomes of each operand: r read, w written, b both. shapes of its operands; none: encoded by other means. widths of the
    first operand, and of the second if they differ. flags: w written, r read.
    """

    roles: str
    shapes: tuple[str, ...] = ()
    widths: tuple[int, ...] = WIDE
    source_widths: tuple[int, ...] = ()
    flags: str = ""
    encoder: str = "peachpy"


_MEMORY: Final = ("rr", "rm", "mr", "ri", "mi")
_SOURCE: Final = ("rr", "rm")
FORMS: Final[dict[str, Form]] = {
    **dict.fromkeys(("add", "sub", "and", "or", "xor"), Form("br", _MEMORY, ALL, flags="w")),
    **dict.fromkeys(("adc", "sbb"), Form("br", _MEMORY, ALL, flags="rw")),
    "cmp": Form("rr", _MEMORY, ALL, flags="w"),
    "test": Form("rr", ("rr", "ri"), ALL, flags="w"),
    "mov": Form("wr", _MEMORY, ALL),
    **dict.fromkeys(("shl", "shr", "sar"), Form("br", ("ri",), flags="w")),
    **dict.fromkeys(("rol", "ror"), Form("br", ("ri", "rc"), ALL, flags="w")),
    "movzx": Form("wr", _SOURCE, (32,), (8, 16)),
    "movsx": Form("wr", _SOURCE, WIDE, (8, 16)),
    "movsxd": Form("wr", _SOURCE, (64,), (32,)),
    "lea": Form("wr", ("rm",)),
    **dict.fromkeys(("lzcnt", "tzcnt", "popcnt"), Form("wr", _SOURCE, flags="w")),
    **dict.fromkeys(("shlx", "shrx", "sarx"), Form("wrr", ("rrr", "rmr"))),
    "rorx": Form("wrr", ("rri", "rmi")),
    "andn": Form("wrr", ("rrr", "rrm"), flags="w"),
    "mulx": Form("wwr", ("rrr", "rrm"), (64,)),
    "imul": Form("br", _SOURCE, flags="w"),
    # PeachPy emits imul with an immediate of 128 to 255 as a sign-extended byte: wrong, so this form is not its to encode
    "imul3": Form("wrr", ("rri",), flags="w", encoder="keystone"),
    **dict.fromkeys(("not", "bswap"), Form("b", ("r",))),
    "neg": Form("b", ("r",), flags="w"),
    **dict.fromkeys(("div", "idiv"), Form("r", ("r",), flags="w")),
    "push": Form("r", ("r", "m"), (64,)),
    "pop": Form("w", ("r", "m"), (64,)),
    "xchg": Form("bb", ("rr",), (64,)),
    **{f"set{condition}": Form("w", ("r",), (8,), flags="r") for condition in CONDITIONS},
    **{f"cmov{condition}": Form("br", _SOURCE, flags="r") for condition in CONDITIONS},
    **dict.fromkeys(("cdq", "cqo", "ret", "ud2"), Form("", ("",))),
    # a failed check's jump, calls, the text of an intrinsic, and parallel moves (see machine.py)
    **{f"j{condition}": Form("r", flags="r") for condition in CONDITIONS},
    "call": Form("r", flags="w"),
    "tail": Form("r"),
    "TEMPLATE": Form("", flags="rw"),
    "MOVES": Form(""),
}


class FormError(Exception):
    """An instruction that the table of forms does not allow, or that an encoder is known to get wrong: a defect of the compiler."""

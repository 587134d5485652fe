"""A routine as each program has it: the compiler inlines as the callers ask for, so that one source becomes more than one code."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from dsl.std import dice, ed25519, edwards25519, hkdf
from tests.execution import native
from tests.worlds import Native, native_of

# routines whose programs hold other code for some that they call, than the programs of those alone
HOLDERS: Final = (
    dice.derive_identifier,
    dice.derive_key_pair,
    dice.derive_layer,
    dice.set_layer_inputs,
    dice.write_device_certificate,
    ed25519.ed25519_verify,
    edwards25519.buckets_total,
    edwards25519.point_is_identity,
    hkdf.hmac_begin,
)
LINKED: Final = re.compile(r"(?<=rip )[+-] 0x[0-9a-f]+|(?<=call )0x[0-9a-f]+|(?<=j)\w+ 0x[0-9a-f]+")


class Inside(Native):
    """A routine as the program of another one holds it: what is inlined there may be another part."""

    def __init__(self, holder: Callable[..., Any]) -> None:
        super().__init__()
        self.holder = holder

    def code(self, function: Callable[..., Any]) -> tuple[native.Native, str]:
        """The other's program."""
        return native_of(self.holder), f"{function.__module__}.{function.__name__}"


def text_of(loaded: native.Native, symbol: str) -> str:
    """A function's instructions in a program, without what the linker decides."""
    program = loaded.program
    if symbol not in program.symbols:
        return ""
    start, size = program.symbols[symbol][:2]
    return "\n".join(LINKED.sub("", line.text) for at, line in program.linked.lines if start <= at < start + size)


def places(function: Callable[..., Any]) -> list[Native]:
    """A routine in a program of its own, and in those of HOLDERS that have other code for it."""
    worlds = [Native(), *(Inside(holder) for holder in HOLDERS)]
    symbol = f"{function.__module__}.{function.__name__}"
    by_text = {text_of(world.code(function)[0], symbol): world for world in reversed(worlds)}
    return [world for text, world in by_text.items() if text]

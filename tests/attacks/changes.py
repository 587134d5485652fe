"""One answer of a TPM, changed: what stands between a machine and its TPM can do, whichever line it sits on."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

HEAD = 10  # bytes of every command and answer: tag, size, code
ERRORS = (0x101, 0x922, 0x99D, 0x12F)  # failure, retry, policy failed, authorization unavailable
MORE = (1, 100, 1000)


@dataclass(frozen=True)
class Changed:
    """What takes an answer's place. No bytes: nothing ever comes. `late_ms`: how much later it comes."""

    kind: str
    answer: bytes
    late_ms: int = 0


def sized(answer: bytes) -> bytes:
    """The size field made to fit."""
    return answer[:2] + len(answer).to_bytes(4, "big") + answer[6:]


def flipped(answer: bytes, choice: random.Random) -> bytes:
    """One bit, of the head too."""
    at = choice.randrange(len(answer))
    return answer[:at] + bytes([answer[at] ^ 1 << choice.randrange(8)]) + answer[at + 1 :]


def truncated(answer: bytes, choice: random.Random) -> bytes:
    return answer[: choice.randrange(HEAD, len(answer) + 1)]


def enlarged(answer: bytes, choice: random.Random) -> bytes:
    return answer + choice.randbytes(choice.choice(MORE))


def overwritten(answer: bytes, choice: random.Random) -> bytes:
    """Ones, zeros or noise from some place on."""
    at = choice.randrange(HEAD, len(answer) + 1)
    rest = len(answer) - at
    return answer[:at] + choice.choice((b"\xff" * rest, bytes(rest), choice.randbytes(rest)))


def error(_: bytes, choice: random.Random) -> bytes:
    return sized(b"\x80\x01" + bytes(4) + choice.choice(ERRORS).to_bytes(4, "big"))


CONTENTS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "flipped": flipped,
    "truncated": truncated,
    "enlarged": enlarged,
    "overwritten": overwritten,
    "error": error,
}
KINDS = (*CONTENTS, "replayed", "delayed", "dropped")


def change(answer: bytes, seen: list[bytes], choice: random.Random, delays_ms: tuple[int, ...], fits: bool) -> Changed:
    """Another answer. `seen`: those before it. `fits`: the line wants a size field that is right; otherwise every other one is."""
    kind = choice.choice(KINDS)
    if kind in CONTENTS:
        made = CONTENTS[kind](answer, choice)
        return Changed(kind, sized(made) if fits or choice.random() < 0.5 else made)
    if kind == "replayed":
        return Changed(kind, choice.choice(seen or [answer]))
    return Changed(kind, answer, choice.choice(delays_ms)) if kind == "delayed" else Changed(kind, b"")

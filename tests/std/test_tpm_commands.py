"""The commands of dsl/std as emitted code: their bytes as TPM 2.0 Library 1.59, part 3 has them, and every field of their answers."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

import pytest

from dsl.lang import offset_of
from dsl.std.tpm import COMMAND_CAPACITY, Tpm
from tests.std.tpm_commands import COMMANDS, CONTENT, KINDS, RESPONSE, TAG, Command, anything, expected, sized
from tests.std.tpm_driver import answer, with_sessions

pytestmark = pytest.mark.t1
MASKED: Final = ("pcr", "quote", "policy PCR")  # whose map of 24 PCRs is written as a word
READ: Final = 70  # bytes of an answer that are changed or cut off: what follows in a long one is of the same array
NAMED: Final = pytest.mark.parametrize("name", COMMANDS)


def check(command: Command, contents: Iterable[bytes]) -> None:
    """Parameters give what they mean, or are refused as such."""
    run = command.run()
    for content in contents:
        meant = expected(command, content)
        assert run.call(command.answered(content)) == (CONTENT if meant is None else 0), content.hex()
        assert meant is None or command.result(run) == meant, content.hex()


@NAMED
@pytest.mark.parametrize("kind", KINDS)
def test_a_command_s_bytes_and_what_its_answer_means(name: str, kind: str) -> None:
    """One command, exactly as part 3 has it; its parameters' meaning; what is to be read later is there to be read."""
    command = COMMANDS[name]
    run = command.run(kind)
    assert run.call(command.answered(command.good)) == 0
    assert run.asked == [command.sent]
    assert command.result(run) == command.meaning(command.good)
    end = len(command.sent) + (name in MASKED)
    before = bytes(run.driver.before)[offset_of(Tpm, "command") :]
    assert run.driver.field("command")[end:] == before[end:COMMAND_CAPACITY]
    start = 14 if command.has_sessions else 10
    read = 0 if command.meaning is anything else len(command.good)
    assert (run.driver.number("offset"), run.driver.number("end")) == (start + read, start + len(command.good))
    assert run.driver.number("malformed") == 0


@NAMED
def test_each_byte_of_an_answer_counts(name: str) -> None:
    """As the structures of part 2 say: a change is another result, or is refused."""
    command = COMMANDS[name]
    good = command.good
    check(
        command,
        (
            good[:at] + bytes([good[at] ^ change]) + good[at + 1 :]
            for at in range(min(len(good), READ))
            for change in (1, 2, 0x80)
        ),
    )


@NAMED
def test_an_answer_that_is_shorter_or_longer(name: str) -> None:
    """By any number of bytes: nothing is read that is not there, and nothing may be left."""
    command = COMMANDS[name]
    check(command, (command.good[:size] for size in range(min(len(command.good), READ))))
    check(command, (command.good + bytes(more) for more in (1, 2, 4, 88, 89, 100)))


OTHER_SIZES: Final = [
    *(("pcr", COMMANDS["pcr"].good[:18] + sized(bytes(size))) for size in (0, 31, 33, 48)),
    *(("index", sized(bytes(size))) for size in (0, 15, 17, 16 + 256)),
    *(("index by policy", sized(bytes(size))) for size in (0x23, 0x122, 0x124)),
    *(("load", bytes(4) + sized(bytes(size))) for size in (0, 33, 35, 50)),
    *(("verify", bytes(size)) for size in (0, 127, 128, 129, 1000)),
    *(("banks", struct.pack(">BII", 0, 5, count) + b"\0\x0b\0" * count) for count in (0, 15, 16, 17, 18, 256, 300)),
    *(("start", bytes(4) + sized(bytes(size))) for size in (0, 16, 64)),
]


@pytest.mark.parametrize(("name", "content"), OTHER_SIZES, ids=lambda value: value if isinstance(value, str) else "")
def test_parts_of_other_sizes(name: str, content: bytes) -> None:
    """An answer that is whole, but not what was asked for, or what there is room for."""
    check(COMMANDS[name], [content])


@NAMED
@pytest.mark.parametrize("code", [1, 0x101, 0x148, 0x18B, 0x8000_0000, 0xFFFF_FFFF])
def test_a_response_code_is_reported(name: str, code: int) -> None:
    """With RESPONSE added; such an answer has a head of its own kind, and nothing else (part 1, 18.4)."""
    command = COMMANDS[name]
    run = command.run()
    for given, found in (
        (answer(code=code), RESPONSE + code),
        (answer(code=code, tag=0x8002), TAG),
        (answer(code=code, tag=0xC4), TAG),
        (answer(b"\0", code=code), TAG),
        (answer(command.good or b"more", code=code), TAG),
    ):
        assert run.call(given) == found
        assert run.asked == [command.sent]


@NAMED
def test_an_answer_has_its_command_s_tag(name: str) -> None:
    """With sessions where the command has one; nothing else."""
    command = COMMANDS[name]
    run, good = command.run(), command.answered(command.good)
    for tag in (0x8001, 0x8002, 0x8003, 0x8000, 0x0001, 0x0002, 0x0180, 0x0280, 0xC4, 0):
        if tag != 0x8001 + command.has_sessions:
            assert run.call(tag.to_bytes(2, "big") + good[2:]) == TAG


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.has_sessions])
def test_the_size_of_parameters_before_sessions(name: str) -> None:
    """It lies inside the answer, and what follows are the sessions'; without room for it there is none."""
    command = COMMANDS[name]
    run, good = command.run(), command.answered(command.good)
    there = len(good) - 14
    for size in (there + 1, there + 2, 1 << 16, (1 << 31) + there, (1 << 32) - 1, (1 << 32) - 4):
        assert run.call(good[:10] + size.to_bytes(4, "big") + good[14:]) == CONTENT
    assert run.call(with_sessions(command.good, rest=b"")) == 0
    for size in range(4):
        assert run.call(answer(bytes(size), tag=0x8002)) == CONTENT

"""The commands of dsl/std: each with its bytes as TPM 2.0 Library 1.59, part 3 has them, a good answer, and what an answer means."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, get_args

from dsl.std import tpm_command, tpm_policy
from dsl.std.tpm import TpmFault
from tests.boot.tpm_device import Crb, Fifo
from tests.std.ported import MEMORY
from tests.std.tpm_driver import Driver, answer, with_sessions
from tests.worlds import element_size, parameter_types

CONTENT: Final = int(TpmFault.ANSWER_CONTENT.value)
TAG: Final = int(TpmFault.ANSWER_TAG.value)
RESPONSE: Final = 1 << 32
PASSWORD: Final = 0x40000009
POLICY: Final = 0x03000007
INDEX: Final = 0x01805401
KINDS: Final[dict[str, type[Fifo | Crb]]] = {"fifo": Fifo, "crb": Crb}


FENCE: Final = b"\xf5" * 32
UNTOUCHED: Final = b"\xa9" * 128


class Wrong(Exception):
    """An answer that has not the form that it should have."""


class Reader:
    """The fields of an answer, one after the other."""

    def __init__(self, content: bytes) -> None:
        self.left = content

    def take(self, size: int) -> bytes:
        """Bytes. Raises Wrong."""
        if size > len(self.left):
            raise Wrong
        taken, self.left = self.left[:size], self.left[size:]
        return taken

    def number(self, size: int) -> int:
        """A number."""
        return int.from_bytes(self.take(size), "big")

    def sized(self) -> bytes:
        """Bytes with their number before them."""
        return self.take(self.number(2))

    def end(self) -> None:
        """Nothing follows. Raises Wrong."""
        if self.left:
            raise Wrong


Result = tuple[int, ...] | bytes


def nothing(content: bytes) -> Result:
    """An answer without parameters."""
    Reader(content).end()
    return ()


def bytes_of(size: int | None = None) -> Callable[[bytes], Result]:
    """An answer of bytes with their number before them."""

    def read(content: bytes) -> Result:
        reader = Reader(content)
        found = reader.sized()
        reader.end()
        return found if size in (None, len(found)) else wrong()

    return read


def wrong() -> Result:
    """An answer that says something else."""
    raise Wrong


def permanent(content: bytes) -> Result:
    """TPMS_CAPABILITY_DATA of one property (part 2, 10.10.1)."""
    reader = Reader(content)
    head = reader.take(13)[1:]
    value = reader.number(4)
    reader.end()
    return (value,) if head == struct.pack(">III", 6, 1, 0x200) else wrong()


def banks(content: bytes) -> Result:
    """TPMS_CAPABILITY_DATA of a TPML_PCR_SELECTION: the algorithms that have a PCR."""
    reader, found = Reader(content), []
    capability, count = struct.unpack(">xII", reader.take(9))
    if capability != 5 or count > 16:
        raise Wrong
    for _ in range(count):
        algorithm = reader.number(2)
        if any(reader.take(reader.number(1))):
            found.append(algorithm)
    reader.end()
    return struct.pack(f"<{len(found)}H", *found)


def pcr_value(content: bytes) -> Result:
    """The answer of PCR_Read for PCR 17 alone."""
    reader = Reader(content)
    reader.take(4)
    head = reader.take(14)
    value = reader.sized()
    reader.end()
    return value if head == selection(1 << 17) + b"\0\0\0\1" and len(value) == 32 else wrong()


def two_sized(content: bytes) -> Result:
    """The answer of NV_ReadPublic."""
    reader = Reader(content)
    _ = reader.sized(), reader.sized()
    reader.end()
    return ()


def session_handle(content: bytes) -> Result:
    """The answer of StartAuthSession."""
    reader = Reader(content)
    handle = reader.number(4)
    reader.sized()
    reader.end()
    return (handle,)


def anything(content: bytes) -> Result:
    """An answer that is read later."""
    return ()


def ticket(content: bytes) -> Result:
    """A ticket, of 128 bytes at most."""
    return content if len(content) <= 128 else wrong()


def key_and_name(content: bytes) -> Result:
    """The answer of LoadExternal: a handle and a SHA-256 name."""
    reader = Reader(content)
    handle, name = reader.number(4), reader.sized()
    reader.end()
    return struct.pack(">I", handle) + name if len(name) == 34 else wrong()


def selection(mask: int) -> bytes:
    """TPML_PCR_SELECTION of the SHA-256 bank."""
    return struct.pack(">IHB", 1, 0xB, 3) + mask.to_bytes(3, "little")


def sized(content: bytes) -> bytes:
    """Bytes with their number before them."""
    return struct.pack(">H", len(content)) + content


def session(handle: int = PASSWORD) -> bytes:
    """An authorization area of one session: no nonce, an empty password; a policy's goes on (part 1, 18.6)."""
    return struct.pack(">IIHBH", 9, handle, 0, handle != PASSWORD, 0)


def command(code: int, *pieces: bytes | int, tag: int = 0x8001) -> bytes:
    """A command; a number stands for four bytes."""
    content = b"".join(piece if isinstance(piece, bytes) else struct.pack(">I", piece) for piece in pieces)
    return struct.pack(">HII", tag, 10 + len(content), code) + content


def run_of(first: int, size: int = 32) -> bytes:
    """Bytes that all differ."""
    return bytes((first + 7 * index) & 0xFF for index in range(size))


class Run:
    """A function before a TPM that always gives the same answer. given: numbers, bytes for an array, a bytearray for one that it writes."""

    def __init__(self, function: Callable[..., Any], kind: str, given: tuple[int | bytes | bytearray, ...]) -> None:
        self.driver = Driver(function, KINDS[kind](self.backend))
        self.answer = b""
        self.asked: list[bytes] = []
        self.places: list[tuple[int, bytes | bytearray]] = []
        self.components: list[int] = []
        for kind_of, value in zip(parameter_types(function), given, strict=True):
            if isinstance(value, int):
                self.components.append(value)
                continue
            offset = 0x400 * len(self.places)
            self.components += [MEMORY + offset, len(value) // element_size(get_args(kind_of)[0])]
            self.places.append((offset, value))

    def backend(self, command: bytes) -> bytes:
        """The TPM."""
        self.asked.append(command)
        return self.answer

    def call(self, answer: bytes) -> int:
        """Run it: the failure's code, or 0. What is only to be read stays."""
        self.answer = answer
        self.asked.clear()
        for offset, value in self.places:
            self.driver.write(offset, bytes(value) + FENCE)
        code, self.value, self.length = self.driver.results(*self.components)[:3]
        for offset, value in self.places:
            held = self.driver.get(offset, len(value) + len(FENCE))
            assert held[len(value) :] == FENCE
            assert isinstance(value, bytearray) or held[: len(value)] == value
        return code

    def written(self) -> bytes:
        """The array that it wrote."""
        offset, value = next(row for row in self.places if isinstance(row[1], bytearray))
        return self.driver.get(offset, len(value))


def no_result(run: Run) -> Result:
    """Of a function that has none."""
    return ()


def number(run: Run) -> Result:
    """A u32."""
    return (run.value & 0xFFFFFFFF,)


def pointed(run: Run) -> Result:
    """Bytes in the answer."""
    return run.driver.pointed(run.value, run.length)


def counted(size: int) -> Callable[[Run], Result]:
    """As many elements in an array as the number says; the others stay as they were."""

    def result(run: Run) -> Result:
        content, end = run.written(), run.value * size
        assert content[end:] == UNTOUCHED[end : len(content)]
        return content[:end]

    return result


def number_and_written(run: Run) -> Result:
    """Both."""
    return struct.pack(">I", run.value & 0xFFFFFFFF) + run.written()


@dataclass(frozen=True)
class Command:
    """A function, what it is given, the command that it sends, a good answer's parameters, what they mean, and where that is found."""

    function: Callable[..., Any]
    given: tuple[int | bytes | bytearray, ...]
    sent: bytes
    good: bytes
    meaning: Callable[[bytes], Result]
    result: Callable[[Run], Result] = no_result

    @property
    def has_sessions(self) -> bool:
        """By its tag."""
        return self.sent[1] == 2

    def answered(self, content: bytes) -> bytes:
        """An answer with these parameters."""
        return with_sessions(content) if self.has_sessions else answer(content)

    def run(self, kind: str = "crb") -> Run:
        """Its function before a TPM."""
        return Run(self.function, kind, self.given)


X, Y, R, S, HASH = (run_of(first) for first in (0x11, 0x22, 0x33, 0x44, 0x55))
ECC_KEY: Final = bytes.fromhex(
    "0023 000b 00040040 0000 0010 0018 000b 0003 0010"
)  # ECC, SHA-256, userWithAuth|sign..., P-256, ECDSA
TICKET: Final = struct.pack(">HI", 0x8022, 0x40000001) + sized(run_of(9))
NAME: Final = b"\0\x0b" + run_of(0x66)
PCRS: Final = [(4, b"\xff\xff\xff"), (0xB, b"\0\0\1"), (0xC, b"\0\0\0"), (0xD, b"\x80\0"), (0x12, b"")]
BANKS: Final = struct.pack(">BII", 1, 5, len(PCRS)) + b"".join(
    struct.pack(">HB", algorithm, len(bits)) + bits for algorithm, bits in PCRS
)
COMMANDS: Final = {
    "permanent": Command(
        tpm_command.read_permanent, (), command(0x17A, 6, 0x200, 1), struct.pack(">BIIII", 0, 6, 1, 0x200, 0x80000501), permanent,
        number,
    ),
    "banks": Command(tpm_command.active_banks, (bytearray(UNTOUCHED[:32]),), command(0x17A, 5, 0, 1), BANKS, banks, counted(2)),
    "pcr": Command(
        tpm_command.read_pcr, (17,), command(0x17E, selection(1 << 17)),
        struct.pack(">I", 77) + selection(1 << 17) + b"\0\0\0\1" + sized(run_of(1)), pcr_value, pointed,
    ),
    "event": Command(
        tpm_command.extend_event, (9, b"an event"), command(0x13C, 9, session(), sized(b"an event"), tag=0x8002),
        b"\0\0\0\1\0\x0b" + run_of(3), anything,
    ),
    "public": Command(tpm_command.read_public, (INDEX,), command(0x169, INDEX), sized(run_of(2, 14)) + sized(NAME), two_sized),
    "index": Command(
        tpm_command.read_index, (INDEX, PASSWORD, 16), command(0x14E, INDEX, INDEX, session(), b"\0\x10\0\0", tag=0x8002),
        sized(run_of(8, 16)), bytes_of(16), pointed,
    ),
    "index by policy": Command(
        tpm_command.read_index, (INDEX, POLICY, 0x123), command(0x14E, INDEX, INDEX, session(POLICY), b"\1\x23\0\0", tag=0x8002),
        sized(run_of(8, 0x123)), bytes_of(0x123), pointed,
    ),
    "lock": Command(
        tpm_command.lock_index, (INDEX, POLICY), command(0x14F, INDEX, INDEX, session(POLICY), tag=0x8002), b"", nothing
    ),
    "flush": Command(tpm_command.flush, (0x80FFFFFE,), command(0x165, 0x80FFFFFE), b"", nothing),
    "quote": Command(
        tpm_command.ask_quote, (0x81005400, HASH, 0x89ABCD),
        command(0x158, 0x81005400, session(), sized(HASH), b"\0\x10", selection(0x89ABCD), tag=0x8002),
        sized(run_of(5, 100)) + run_of(6, 70), anything,
    ),
    "start": Command(
        tpm_policy.start_policy, (), command(0x176, 0x40000007, 0x40000007, sized(bytes(16)), b"\0\0", b"\1", b"\0\x10", b"\0\x0b"),
        struct.pack(">I", POLICY) + sized(run_of(4)), session_handle, number,
    ),
    "policy PCR": Command(
        tpm_policy.policy_pcr, (POLICY, 0x765432), command(0x17F, POLICY, b"\0\0", selection(0x765432)), b"", nothing
    ),
    "policy NV": Command(
        tpm_policy.policy_at_most, (POLICY, INDEX, 0x0123456789ABCDEF),
        command(0x149, INDEX, INDEX, POLICY, session(), sized(bytes.fromhex("0123456789abcdef")), b"\0\0", b"\0\x09", tag=0x8002),
        b"", nothing,
    ),
    "digest": Command(tpm_policy.policy_digest, (POLICY,), command(0x189, POLICY), sized(run_of(7)), bytes_of(), pointed),
    "load": Command(
        tpm_policy.load_key, (X, Y, bytearray(UNTOUCHED[:34])), command(0x167, b"\0\0", sized(ECC_KEY + sized(X) + sized(Y)), 0x40000001),
        struct.pack(">I", 0x80000001) + sized(NAME), key_and_name, number_and_written,
    ),
    "verify": Command(
        tpm_policy.verify_signature, (0x80000001, HASH, R, S, bytearray(UNTOUCHED[:128])),
        command(0x177, 0x80000001, sized(HASH), b"\0\x18\0\x0b", sized(R), sized(S)), TICKET, ticket, counted(1),
    ),
}  # fmt: skip


def expected(command: Command, content: bytes) -> Result | None:
    """What parameters mean; None: they are no answer to this command."""
    try:
        return command.meaning(content)
    except (Wrong, struct.error):
        return None

"""The witness under CPython, against a monitor of a few lines: its lines, its evidence, its canaries."""

from __future__ import annotations

import hashlib
import struct
from collections import deque
from collections.abc import Callable, Iterator
from typing import ClassVar

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from dsl.lang import offset_of, size_of, u32, u64
from dsl.lang.intrinsics import write_cr2, write_dr2, wrmsr
from dsl.lang.model import Machine
from guests.canaries import CANARY, MSR_KERNEL_GS_BASE, MSR_LSTAR, fill_xmm
from guests.witness.canaries import (
    DAMAGED_CR2,
    DAMAGED_DEBUG,
    DAMAGED_KERNEL_GS,
    DAMAGED_LSTAR,
    DAMAGED_MEMORY,
    DAMAGED_XMM,
    PAGE,
    check_canaries,
    plant_canaries,
)
from guests.witness.main import start
from pipeline.evidence import Kind, parse
from vmm.abi import BoxIdentity, EndorseRequest, Hypercall, Status

pytestmark = pytest.mark.t0
NONCE = bytes(range(100, 132))


class NothingMore(Exception):
    """The person has typed everything, and the witness waits."""


class Monitor:
    """Serial port and hypercalls as a box sees them. Certificates are plain texts here: only their transport is the witness's."""

    measured: ClassVar[dict[int, bytes]] = {}  # what EVIDENCE gives, by item

    def __init__(self, machine: Machine, keys: bytes, statuses: dict[Hypercall, list[Status]] | None = None) -> None:
        """Put the port and the hypercalls into the machine; `keys` will be typed. `statuses` come before the true answers."""
        self.machine = machine
        self.keys = deque(keys)
        self.screen = bytearray()
        self.statuses = {call: deque(row) for call, row in (statuses or {}).items()}
        self.requests: list[bytes] = []
        self.registers = [0] * 8
        for offset in range(8):
            machine.ports[0x3F8 + offset] = self
        machine.ports.update(dict.fromkeys((0x20, 0x21, 0xA0, 0xA1, 0x43), 0))
        machine.hypercall = self.hypercall
        machine.wake = self.wake
        machine.msrs[MSR_LSTAR] = machine.msrs[MSR_KERNEL_GS_BASE] = 0

    def read(self, port: int, width: int) -> int:
        """IN."""
        offset = port - 0x3F8
        if offset == 0:
            return self.keys.popleft()
        return 0x60 | bool(self.keys) if offset == 5 else self.registers[offset]

    def write(self, port: int, width: int, value: int) -> None:
        """OUT."""
        if port == 0x3F8 and not self.registers[3] & 0x80:
            self.screen.append(value)
        self.registers[port - 0x3F8] = value

    def wake(self, machine: Machine) -> None:
        """HLT: all keys are there from the start, so the witness waits for ever; but not deaf."""
        deaf = not machine.cpu.rflags & 1 << 9
        assert deaf or (self.registers[1] & 1 and self.registers[4] & 8 and self.machine.ports[0x21] == 0xEF)
        raise NothingMore

    def hypercall(self, number: int, arguments: tuple[int, ...]) -> tuple[int, int]:
        """VMCALL."""
        call = Hypercall(u64(number))
        waiting = self.statuses.get(call)
        if waiting:
            return int(waiting.popleft().value), 0
        if call is Hypercall.RANDOM:
            self.machine.memory.write(arguments[0], bytes(range(1, arguments[1] + 1)))
        elif call is Hypercall.GET_ID:
            self.machine.memory.write(arguments[0], identity(arguments[1]))
        elif call is Hypercall.ENDORSE:
            self.requests.append(self.machine.memory.read(arguments[0], arguments[1]))
            self.machine.memory.write(arguments[2], certificate(b"endorsement"))
        elif call is Hypercall.EVIDENCE:
            buffer, size, kind, offset, _ = arguments
            content = self.measured.get(kind, b"")
            self.machine.memory.write(buffer, content[offset : offset + size])
            return 0, len(content)
        return 0, 0

    def lines(self) -> list[str]:
        """What was printed."""
        return self.screen.decode().replace("\r\n", "\n").split("\n")


def certificate(der: bytes) -> bytes:
    """Return a Certificate or Endorsement record."""
    return struct.pack("<I", len(der)) + der.ljust(1024, b"\0")


def identity(size: int) -> bytes:
    """Return a BoxIdentity."""
    assert size == size_of(BoxIdentity)
    head = bytes(range(32)) + b"witness".ljust(32, b"\0") + bytes(32) + struct.pack("<I", 2)
    return head + certificate(b"device") + certificate(b"monitor") + certificate(b"box")


def converse(keys: bytes, statuses: dict[Hypercall, list[Status]] | None = None) -> Monitor:
    """Start a witness, type keys, and return what happened."""
    with Machine() as machine:
        monitor = Monitor(machine, keys, statuses)
        with pytest.raises(NothingMore):
            start()
        return monitor


def test_what_a_tpm_shows_is_in_the_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quote, signature and log, whole, whatever their sizes; what is larger than the bundle is left out."""
    for sizes in ((145, 72, 5000), (0, 256, 257), (1, 0, 512), (10, 10, 1 << 18)):
        measured = {kind: bytes(range(251)) * (size // 251 + 1) for kind, size in zip((7, 8, 9), sizes, strict=True)}
        measured = {kind: data[:size] for (kind, data), size in zip(measured.items(), sizes, strict=True)}
        monkeypatch.setattr(Monitor, "measured", measured)
        lines = converse(b"attest " + NONCE.hex().encode() + b"\r").lines()
        end = next(index for index, line in enumerate(lines) if line.startswith("end-evidence "))
        items = parse(bytes.fromhex("".join(lines[2:end])))
        expected = {kind: data for kind, data in measured.items() if data and len(data) < 1 << 17}
        assert {int(item.kind): item.data for item in items[5:]} == expected


def test_evidence_is_the_bundle_of_the_chain() -> None:
    """`attest` prints the chain, the endorsement and the endorsed data, whose digest ends it; the signature in it is the endorsed key's."""
    monitor = converse(b"attest " + NONCE.hex().encode() + b"\r")
    lines = monitor.lines()
    assert lines[:2] == ["witness ready", "begin-evidence"]
    end = next(index for index, line in enumerate(lines) if line.startswith("end-evidence "))
    assert all(0 < len(line) <= 64 for line in lines[2:end])
    bundle = bytes.fromhex("".join(lines[2:end]))
    assert lines[end] == f"end-evidence {hashlib.sha256(bundle).hexdigest()}"
    assert lines[end + 1] == "witness canaries intact"
    items = parse(bundle)
    kinds = [Kind.DEVICE, Kind.MONITOR, Kind.BOX, Kind.ENDORSEMENT, Kind.WITNESS_DATA]
    assert [item.kind for item in items] == kinds
    assert [item.data for item in items[:4]] == [b"device", b"monitor", b"box", b"endorsement"]
    (request,) = monitor.requests
    public, nonce, size = struct.unpack_from("<32s32sI", request)
    data = request[offset_of(EndorseRequest, "data") :][:size]
    assert (nonce, items[4].data) == (NONCE, data)
    assert data[:32] == b"canaries intact".ljust(32, b"\0")
    Ed25519PublicKey.from_public_bytes(public).verify(data[32:], data[:32] + NONCE)


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        (b"attest 12\r", "error: attest: expected 64 hexadecimal digits, found 2 characters"),
        (b"attest " + b"0" * 63 + b"g\r", "error: attest: expected 64 hexadecimal digits, found 64 characters"),
        (b"hello\r", 'error: expected "attest <64 hexadecimal digits>" or "canaries"'),
        (b"attest\r", 'error: expected "attest <64 hexadecimal digits>" or "canaries"'),
        (b"x" * 500 + b"\r", "error: expected a line of at most 160 bytes, found 500"),
        (b"canariez\x7fs\n", "witness canaries intact"),
        (b"\x08\x08canaries\r\n", "witness canaries intact"),
    ],
)
def test_lines(typed: bytes, answer: str) -> None:
    """Each line gets its answer; a wrong one says what was expected and what was found, and nothing is endorsed."""
    monitor = converse(typed)
    assert monitor.lines() == ["witness ready", answer, ""]
    assert monitor.requests == []


def test_resumed_endorsement() -> None:
    """AGAIN is answered by the same call again."""
    monitor = converse(b"attest " + b"00" * 32 + b"\r", {Hypercall.ENDORSE: [Status.AGAIN] * 3})
    assert len(monitor.requests) == 1
    assert "begin-evidence" in monitor.lines()


def test_refusals_are_said() -> None:
    """A status that is not OK is printed with its number, and no evidence comes."""
    monitor = converse(b"attest " + b"00" * 32 + b"\r", {Hypercall.ENDORSE: [Status.NOT_PERMITTED]})
    assert monitor.lines() == ["witness ready", "error: ENDORSE expected status 0, found 4", ""]
    monitor = converse(b"", {Hypercall.GET_ID: [Status.UNKNOWN_CALL]})
    assert monitor.lines() == ["error: GET_ID expected status 0, found 1", "witness cannot work", ""]


def test_no_key_without_entropy() -> None:
    """A short lack of entropy is waited out; a lasting one stops the witness: it makes no key from nothing."""
    assert converse(b"", {Hypercall.RANDOM: [Status.NO_ENTROPY] * 5}).lines() == ["witness ready", ""]
    lines = converse(b"", {Hypercall.RANDOM: [Status.NO_ENTROPY] * 5000}).lines()
    assert lines == ["error: RANDOM expected status 0, found 6", "witness cannot work", ""]


@pytest.fixture
def planted() -> Iterator[None]:
    """A machine in which the canaries are planted."""
    with Machine() as machine:
        machine.msrs[MSR_LSTAR] = machine.msrs[MSR_KERNEL_GS_BASE] = 0
        plant_canaries()
        assert int(check_canaries()) == 0
        yield


@pytest.mark.usefixtures("planted")
def test_each_damage_is_noticed() -> None:
    """A change of any register or word is reported as its own bit."""
    other = u64(CANARY | 0xFF)
    expected = 0
    damages: list[tuple[int, Callable[[], None]]] = [
        (DAMAGED_XMM, lambda: fill_xmm(other)),
        (DAMAGED_DEBUG, lambda: write_dr2(other)),
        (DAMAGED_CR2, lambda: write_cr2(other)),
        (DAMAGED_LSTAR, lambda: wrmsr(u32(MSR_LSTAR), other)),
        (DAMAGED_KERNEL_GS, lambda: wrmsr(u32(MSR_KERNEL_GS_BASE), other)),
        (DAMAGED_MEMORY, lambda: PAGE.fill(other)),
    ]
    for bit, damage in damages:
        damage()
        expected |= bit
        assert int(check_canaries()) == expected

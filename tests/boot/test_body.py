"""The loader body under CPython: what it does to a good image, and how it refuses others."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

import boot.entries
import boot.image
import boot.main
from boot.handoff import DIRECT_MAP, HANDOFF_SIZE, MONITOR_BASE, Handoff
from boot.parameters import PARAMETERS_BASE, BootParameters
from dsl.lang import Array, HostVirtual, address_of, current_machine, frame_array, u8
from dsl.lang.model import Halted
from tests.boot import chain
from tests.boot.images import (
    DEVELOPMENT_SECRET,
    MONITOR,
    SEGMENT,
    Part,
    partition_of,
)
from tests.boot.keys import OTHER_KEY, PUBLIC_KEY, SECRET
from tests.boot.model import RAM_END, machine_with
from tests.boot.tables import walk

pytestmark = pytest.mark.t0
GATE = 0x13F80  # where `leave` lies in this model: it runs over into the next page


class Left(Exception):
    """The loader reached its end, with these arguments of `leave`."""


def flat_program(
    *, magic: bytes = b"TRNFLAT1", entry: int = 64, memory: int = 0x5000, base: int = MONITOR_BASE
) -> bytes:
    """A flat program of three pages: text, read-only data, data."""
    return struct.pack("<8sIIIIIIQ", magic, entry, 0x1000, 0x2000, 0x3000, memory, 0, base).ljust(0x3000, b"\xcc")


def zeroed(program: bytes) -> bytes:
    return program[:40] + bytes(24) + program[64:]


PARTS = [Part(MONITOR, zeroed(flat_program()), 4), Part(SEGMENT, b"kernel" * 1000), Part(DEVELOPMENT_SECRET, SECRET)]


def bytes_of(array: Array[u8]) -> bytes:
    return current_machine().memory.read(int(address_of(array).as_u64()), int(array.length))


def verify_elsewhere(public_key: Array[u8], message: Array[u8], signature: Array[u8]) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(bytes_of(public_key)).verify(bytes_of(signature), bytes_of(message))
    except InvalidSignature:
        return False
    return True


def hash_elsewhere(digest: Array[u8], data: Array[u8]) -> None:
    current_machine().memory.write(int(address_of(digest).as_u64()), hashlib.sha256(bytes_of(data)).digest())


def run(monkeypatch: pytest.MonkeyPatch, partition: bytes, **options: Any) -> tuple[Any, str, tuple[int, ...] | None]:
    """Run the body to its end: the machine, what it said, and the arguments of `leave` if it got there.

    Signatures and hashes are another library's here, for speed: ours are tested as machine code, and in whole boots.
    """

    def leave(*arguments: HostVirtual) -> None:
        raise Left(*(int(argument.as_u64()) for argument in arguments))

    monkeypatch.setattr(boot.main, "leave", leave)
    monkeypatch.setattr(boot.image, "ed25519_verify", verify_elsewhere)
    monkeypatch.setattr(boot.image, "sha256_bulk", hash_elsewhere)
    monkeypatch.setattr(boot.main, "function_address", lambda function: HostVirtual(GATE))
    machine, uart, pci = machine_with(partition, PUBLIC_KEY, **options)
    pci.functions[0x0008] = [0x12348086, 0x02000007, 0, 0x00800000]  # several functions, bus master on
    pci.functions[0x000A] = [0x12358086, 0x02000006, 0, 0]
    pci.functions[0x0110] = [0x12368086, 0x02000003, 0, 0]
    left = None
    with machine:
        try:
            boot.main.main(BootParameters.at(HostVirtual(PARAMETERS_BASE)))
        except Left as end:
            left = end.args
        except Halted:
            pass
    assert [function[1] & 0xFFFF for function in pci.functions.values()] == [3, 2, 3]
    return machine, uart.sent.decode().replace("\r", ""), left


def test_a_good_image_is_placed_and_the_monitor_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    partition = partition_of(PARTS)
    machine, said, left = run(monkeypatch, partition)
    assert left is not None, said
    handoff_place, tables, entry = left[:3]
    assert entry == MONITOR_BASE + 64
    assert "DEVELOPMENT SECRET" in said
    with machine:
        handoff = Handoff.at(HostVirtual(handoff_place - DIRECT_MAP))
        assert int(handoff.entry_count) == 2
        monitor = int(handoff.monitor_physical.as_u64())
        assert monitor % 0x200000 == 0
        assert int(handoff.monitor_memory) == 0x200000
        assert machine.memory.read(monitor, 0x5000) == PARTS[0].content + bytes(0x2000)
        segment = int(handoff.entries[1].physical.as_u64())
        assert machine.memory.read(segment, 6000) == PARTS[1].content
        row = machine.memory.read(0x1000000 + 64, 64)
        assert bytes(int(handoff.entries[0].row[index]) for index in range(64)) == row
        expected = chain.derive(SECRET, row, PUBLIC_KEY, security_version=4)
        base = handoff_place - DIRECT_MAP
        block = machine.memory.read(base, HANDOFF_SIZE)
        assert expected.cdi_attest + expected.cdi_seal in block
        device = handoff.device_certificate
        device_der = bytes(int(device.content[index]) for index in range(int(device.size)))
        layer = handoff.monitor_certificate
        layer_der = bytes(int(layer.content[index]) for index in range(int(layer.size)))
        chain.check(device_der, layer_der, expected)
        ranges = [(int(handoff.ranges[i].base), int(handoff.ranges[i].size)) for i in range(int(handoff.range_count))]
        taken = [(monitor, 0x200000), (segment, 0x2000), (base, HANDOFF_SIZE), (tables, int(handoff.page_tables_size))]
        for place, size in [*taken, (0, 0x100000)]:
            assert all(place + size <= low or low + length <= place for low, length in ranges), hex(place)
        assert sum(length for _, length in ranges) + sum(size for _, size in taken) == 0x3F00000
        assert SECRET not in machine.memory.read(0, RAM_END)
        assert boot.entries.SECRET.equals(frame_array(u8, 32))  # frames are wiped by `leave`: seen in the emulator


def test_the_monitors_space_is_never_writable_and_executable(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, said, left = run(monkeypatch, partition_of(PARTS))
    assert left is not None, said
    mapped = dict(walk(machine.memory.load, left[1]))
    with machine:
        monitor = int(Handoff.at(HostVirtual(left[0] - DIRECT_MAP)).monitor_physical.as_u64())
    assert not any(writable and executable for _, writable, executable in mapped.values())
    for page, (writable, executable) in {
        0: (False, True),
        1: (False, False),
        2: (True, False),
        511: (True, False),
    }.items():
        assert mapped[MONITOR_BASE + page * 4096] == (monitor + page * 4096, writable, executable)
    assert MONITOR_BASE + 0x200000 not in mapped
    assert mapped[DIRECT_MAP + 0x200000] == (0x200000, True, False)
    assert mapped[DIRECT_MAP + 0xFEE00000] == (0xFEE00000, True, False)
    assert DIRECT_MAP + monitor not in mapped
    assert len([address for address in mapped if address >= DIRECT_MAP and address < MONITOR_BASE]) == 2047
    low = {address: row for address, row in mapped.items() if address < DIRECT_MAP}
    assert low == {page: (page, False, True) for page in (0x13000, 0x14000)}


def flipped(partition: bytes, offset: int) -> bytes:
    content = bytearray(partition)
    content[offset] ^= 0x10
    return bytes(content)


REFUSALS = {
    "another signer": (partition_of(PARTS, key=OTHER_KEY), "header: signature: expected one by the key in the loader"),
    "a flipped header byte": (flipped(partition_of(PARTS), 70), "header: signature: "),
    "a flipped signature byte": (flipped(partition_of(PARTS), 8130), "header: signature: "),
    "a flipped monitor byte": (flipped(partition_of(PARTS), 8192 + 500), "monitor: entry 0, partition bytes 0x"),
    "a flipped memory size": (flipped(partition_of(PARTS), 8192 + 24 + 3), "monitor: entry 0, partition bytes 0x"),
    "a flipped segment byte": (flipped(partition_of(PARTS), 8192 + 0x3000), "segment: entry 1, partition bytes 0x"),
    "a flipped secret byte": (flipped(partition_of(PARTS), 8192 + 0x5000), "development secret: entry 2, partition"),
    "a TPM wanted": (partition_of(PARTS, flags=3), "device secret: the header wants a TPM's: expected TPM state 0x"),
    "a cut image": (partition_of(PARTS)[:8192], "header: image size: expected at most 0x0000000000002000 bytes, found"),
    "no flat program": (partition_of([Part(MONITOR, zeroed(flat_program(magic=b"TRNFLAT2"))), *PARTS[1:]]), "monitor: magic: "),
    "another base": (partition_of([Part(MONITOR, zeroed(flat_program(base=0x10000))), *PARTS[1:]]), "monitor: base: "),
    "an entry in data": (partition_of([Part(MONITOR, zeroed(flat_program(entry=0x1000))), *PARTS[1:]]), "monitor: entry point"),
    "too little memory": (partition_of([Part(MONITOR, zeroed(flat_program(memory=0x30000000))), *PARTS[1:]]), "memory: monitor: "),
    "a stray byte": (partition_of([Part(MONITOR, flat_program()), *PARTS[1:]]), "monitor: reserved bytes: "),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_not_as_signed_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    partition, expected = REFUSALS[name]
    _, said, left = run(monkeypatch, partition)
    assert left is None
    assert f"terrane| refused: {expected}" in said
    assert "found" in said
    assert said.endswith("terrane| stopped\n")


def test_without_any_secret_the_chain_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    """No TPM, no development secret: mode 0, the all-zero secret, and a line that says so."""
    machine, said, left = run(monkeypatch, partition_of(PARTS[:2], flags=0))
    assert left is not None, said
    assert "terrane| loader: TPM: none\nterrane| loader: NO DEVICE SECRET" in said
    assert "NOT AUTHENTIC" in said
    with machine:
        handoff = Handoff.at(HostVirtual(left[0] - DIRECT_MAP))
        assert (int(handoff.mode), int(handoff.posture), int(handoff.tpm_state)) == (0, 0, 0)
        row = machine.memory.read(0x1000000 + 64, 64)
        expected = chain.derive(bytes(32), row, PUBLIC_KEY, security_version=4, mode=0, posture=0)
        assert expected.cdi_attest + expected.cdi_seal in machine.memory.read(left[0] - DIRECT_MAP, HANDOFF_SIZE)


def test_a_refused_hash_names_the_place_and_both_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    _, said, _ = run(monkeypatch, flipped(partition_of(PARTS), 8192 + 0x3000))
    content = flipped(PARTS[1].content, 0)
    assert (
        "segment: entry 1, partition bytes 0x0000000000005000 to 0x000000000000676f: "
        f"expected SHA-256 {hashlib.sha256(PARTS[1].content).hexdigest()}, found {hashlib.sha256(content).hexdigest()}\n"
    ) in said


def test_staging_must_be_ram(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(0x100000, 0x3F00000, 1, 1), (0x1002800, 1, 2, 1)]
    _, said, left = run(monkeypatch, partition_of(PARTS), rows=rows)
    assert left is None
    assert "memory: image as read: expected 0x0000000000008000 bytes of RAM, found 0x0000000000002000" in said


def test_other_parameters_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _, said, left = run(monkeypatch, partition_of(PARTS), rows=[])
    assert left is None
    assert "loader: boot parameters: memory ranges: expected 1 to 0x0000000000000078, found 0x0000000000000000" in said

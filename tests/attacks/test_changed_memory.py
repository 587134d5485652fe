"""Memory that changes while the loader works, in its emitted bytes: refused before a hash, without effect once the copy was made."""

from __future__ import annotations

import functools
import random
import struct

import pytest

import boot.uefi
from boot.handoff import DIRECT_MAP, HANDOFF_SIZE, Handoff
from boot.parameters import BootParameters
from boot.stages import BOUNCE_BASE
from dsl.compiler.pipeline import Program, compile_program
from dsl.lang import offset_of, size_of
from pipeline import layouts
from tests.boot.emulated_boot import BOUNCE_SIZE, RAM_SIZE, RANGES, Body, Stages
from tests.boot.images import DEVELOPMENT_SECRET, disk_of, loader, partition_of, usual_parts
from tests.boot.keys import FONT, PUBLIC_KEY
from tests.boot.model import STAGING, parameters

pytestmark = pytest.mark.t1
HASH, ALLOCATE, CHALLENGE = "boot.entries.require_intact", "boot.places.allocate", "dsl.std.ed25519.hash_challenge"
PARTS = usual_parts()
HEADER, HEADER_SIZE, SIGNATURE_OFFSET = "boot.main.HEADER", 8192, 8128
PROLOGUE_FIELDS = range(8, 32)  # of dsl/std/flat.py: entry, ends, sizes
MASKS = (1, 0x10, 0x30, 0x60, 0xFF)  # 0x30: from one end of a section to another, in pages
HASHES = len(PARTS) + 1  # the monitor is hashed where it was read, too
NOTHING = range(0)
FIRMWARES = ("bios", "uefi")
APPLICATION_PLACE = 0x600000  # where `move` puts the UEFI program in these tests


@functools.cache
def partition() -> bytes:
    return partition_of(PARTS)


@functools.cache
def application() -> Program:
    """The loader for UEFI, linked where it is moved to."""
    supplied = {"boot.header_key": PUBLIC_KEY, "std.font": FONT}
    return compile_program(boot.uefi.start, base=APPLICATION_PLACE, supplied=supplied)


@functools.cache
def bios_memory() -> bytes:
    """All memory where stage 2 enters the body."""
    return bytes(Stages(disk_of(partition())).run(loader()))


@functools.cache
def uefi_memory() -> tuple[bytes, int]:
    """All memory where the UEFI part enters the body, and where its parameters lie."""
    program = application()
    memory = bytearray(RAM_SIZE)
    memory[program.base : program.base + len(program.image)] = program.image
    place = program.symbols["boot.uefi.PARAMETERS"][0]
    content = bytearray(parameters(partition(), [(*row, 1) for row in RANGES]).ljust(size_of(BootParameters), b"\0"))
    struct.pack_into("<I", content, offset_of(BootParameters, "firmware"), 1)
    struct.pack_into("<QQ", content, offset_of(BootParameters, "loader_base"), program.base, program.memory_size)
    memory[place : place + len(content)] = content
    memory[STAGING : STAGING + len(partition())] = partition()
    return bytes(memory), place


def body_of(firmware: str) -> Body:
    """The loader body before its first instruction."""
    body = Body(loader(), bios_memory()) if firmware == "bios" else Body(application(), *uefi_memory())
    for symbol in (HASH, ALLOCATE, CHALLENGE):
        body.watch(symbol)
    return body


@functools.cache
def good(firmware: str) -> bytes:
    """What the monitor finds after an undisturbed boot: all of memory but where the image was read."""
    body = body_of(firmware)
    assert body.run()
    assert body.lines()[-1].endswith("the monitor starts")
    return body.outcome(body.staging)


def handed_over(body: Body) -> list[bytes]:
    """The bytes of each entry where the handoff says they are, with the monitor entered."""
    handoff = layouts.unpack(Handoff, body.read(body.register("RDI") - DIRECT_MAP, HANDOFF_SIZE))
    return [body.read(entry["physical"], entry["size"]) for entry in handoff["entries"][: handoff["entry_count"]]]


def some(size: int, seed: int, count: int = 6) -> list[int]:
    """The first offset, the last, and others."""
    source = random.Random(seed)
    return sorted({0, size - 1, *(source.randrange(size) for _ in range(count))})


def say(capsys: pytest.CaptureFixture[str], words: str) -> None:
    with capsys.disabled():
        print(f"\n{words}")


@pytest.mark.parametrize("firmware", FIRMWARES)
def test_a_byte_changed_between_copy_and_hash_is_refused(firmware: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the header's copy, of each entry's, and of the monitor where it was read: one at a time, with the entry's name."""
    body = body_of(firmware)
    assert body.run(CHALLENGE)
    refused, saved = 0, body.save()
    for offset in some(HEADER_SIZE, 0):
        if offset < SIGNATURE_OFFSET:  # what is hashed here; the signature's first half has been read
            body.restore(saved)
            body.flip(body.program.symbols[HEADER][0] + offset)
            assert not body.run(), offset
            assert "header: signature" in body.lines()[-2]
            refused += 1
    body.restore(saved)
    for hashed in range(HASHES):
        assert body.run(HASH)
        saved, place, size = body.save(), body.register("RDI"), body.register("RSI")
        assert (place in body.staging) == (hashed == 0)
        for offset in some(size, hashed):
            body.restore(saved)
            body.flip(place + offset)
            assert not body.run(), (hashed, offset)
            assert f": entry {max(hashed - 1, 0)}, partition bytes" in body.lines()[-2]
            refused += 1
        body.restore(saved)
    assert body.run(), "changed back, it boots"
    say(capsys, f"{firmware}: {refused} bytes changed between copy and hash: boots that proceeded 0")


def test_a_check_that_is_left_out_is_seen() -> None:
    """With a `ret` for the comparison of hashes, a changed byte boots: these tests would say so."""
    body = body_of("bios")
    body.engine.mem_write(body.program.symbols[HASH][0], b"\xc3")
    assert body.run(HASH)
    body.flip(body.register("RDI") + 5000)
    assert body.run()
    assert body.outcome(body.staging) != good("bios")


@pytest.mark.parametrize("firmware", FIRMWARES)
def test_what_is_changed_where_it_was_read_has_no_effect(firmware: str, capsys: pytest.CaptureFixture[str]) -> None:
    """From each entry's copy on its bytes as they were read, and from the header's on those of the header, are noise: the same boot."""
    body = body_of(firmware)
    wanted, changed = good(firmware), 0
    body = body_of(firmware)
    assert body.run(CHALLENGE)
    places = [(body.staging.start, HEADER_SIZE)]
    noise = random.Random(1)
    for hashed in range(HASHES):
        for place, size in places:
            body.engine.mem_write(place, noise.randbytes(size))
            changed += size
        assert body.run(HASH)
        offset, size = struct.unpack("<QQ", body.read(body.register("RDX") + 8, 16))  # of the entry
        places = [(body.staging.start + offset, size)] if hashed else []  # the monitor is to be copied yet
    for place, size in places:
        body.engine.mem_write(place, noise.randbytes(size))
        changed += size
    assert body.run()
    assert body.outcome(body.staging) == wanted
    assert handed_over(body) == [part.content for part in PARTS if part.kind != DEVELOPMENT_SECRET]
    say(capsys, f"{firmware}: {changed} bytes changed where they were read, after the copy: boots that differ 0")


@pytest.mark.slow
@pytest.mark.parametrize("firmware", FIRMWARES)
def test_the_monitors_first_bytes_are_looked_at_once(firmware: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Changed after the hash of what was read, and changed back before the copy: nothing that was believed in between counts."""
    wanted, body = good(firmware), body_of(firmware)
    assert body.run(HASH)
    back = int.from_bytes(body.read(body.register("RSP"), 8), "little")
    place = body.register("RDI")
    assert body.run(back)
    saved, refused = body.save(), 0
    for offset in PROLOGUE_FIELDS:
        for mask in MASKS:
            body.restore(saved)
            body.flip(place + offset, mask)
            if body.run(ALLOCATE):
                body.flip(place + offset, mask)
                if body.run():
                    assert body.outcome(body.staging) == wanted, (offset, mask)
                    continue
            refused += 1
    tried = len(PROLOGUE_FIELDS) * len(MASKS)
    say(
        capsys,
        f"{firmware}: the monitor's prologue changed for a moment {tried} times: refused {refused}, other boots 0",
    )
    assert refused > tried // 2


def test_the_bounce_buffer_after_its_copy_has_no_effect(capsys: pytest.CaptureFixture[str]) -> None:
    """Before each further read, and when the body begins, all of it is noise: the same memory, the same boot."""
    noise = random.Random(2)

    def disturb(stages: Stages, fresh: bool) -> None:
        if not fresh:
            stages.engine.mem_write(BOUNCE_BASE, noise.randbytes(BOUNCE_SIZE))

    stages = Stages(disk_of(partition()), disturb)
    memory = stages.run(loader())
    memory[BOUNCE_BASE : BOUNCE_BASE + BOUNCE_SIZE] = noise.randbytes(BOUNCE_SIZE)
    undisturbed = bytearray(bios_memory())
    undisturbed[BOUNCE_BASE : BOUNCE_BASE + BOUNCE_SIZE] = memory[BOUNCE_BASE : BOUNCE_BASE + BOUNCE_SIZE]
    assert memory == undisturbed
    body = Body(loader(), memory)
    assert body.run()
    assert body.outcome(body.staging) == good("bios")
    say(capsys, f"bios: {stages.chunks} buffers of {BOUNCE_SIZE} bytes changed after their copy: boots that differ 0")


@pytest.mark.slow
def test_the_bounce_buffer_before_its_copy_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A byte that is not the disk's reaches memory, and goes no further."""
    offsets = (0, 64, 8191, 0x2000, 0x4000, 0x5001, 0xC000, 0x14000, 0x18000, 0x19000)  # header, then each entry
    for offset in offsets:

        def disturb(stages: Stages, fresh: bool, offset: int = offset) -> None:
            if fresh and stages.chunks == offset // BOUNCE_SIZE + 1:
                place = BOUNCE_BASE + offset % BOUNCE_SIZE
                stages.engine.mem_write(place, bytes([partition()[offset] ^ 4]))

        body = Body(loader(), Stages(disk_of(partition()), disturb).run(loader()))
        assert not body.run(), hex(offset)
    say(capsys, f"bios: {len(offsets)} bytes changed in the bounce buffer before their copy: boots that proceeded 0")

"""Whole boots of the pipeline's own image, damaged: each is refused by a line that names the bytes, and nothing of it is started."""

from __future__ import annotations

import dataclasses
import random
import re
from pathlib import Path

import pytest

from pipeline import disk
from tests.boot.machine import boot
from tests.pipeline import forge
from tests.system import made
from tests.system.machine import BOCHS
from tests.system.made import ANY_KEYS, WITNESS, Made, entry_places

pytestmark = [pytest.mark.t2, pytest.mark.slow, pytest.mark.skipif(BOCHS is None, reason="Bochs is not installed")]
STOPPED = "terrane| stopped"
CHECKING = "terrane| loader: checking the image"
SAMPLES = 2  # of each kind, at random
KINDS = {
    "MONITOR": "monitor",
    "DESCRIPTOR": "descriptor",
    "SEGMENT": "segment",
    "RELEASE_CHAIN": "release chain",
    "DEVELOPMENT_SECRET": "development secret",
}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("image")
    quiet = made.flat_box(folder, "quiet", b"\xfa\xf4")
    return made.make(folder, [WITNESS, quiet])


def partition_start() -> int:
    """Where the partition's first byte lies on the disk."""
    return disk.TERRANE_FIRST * disk.SECTOR


def refused(folder: Path, content: bytes) -> list[str]:
    """What a disk's boot printed; nothing may have been started."""
    said = boot(folder, content).serial.replace("\r", "").splitlines()
    assert said[-1] == STOPPED, said
    assert not [line for line in said if line.startswith(("terrane| monitor", "terrane| box", "witness", "quiet"))]
    return said


def flipped(image: Made, offset: int, mask: int) -> bytes:
    """The disk with one bit of the partition changed."""
    content = bytearray(image.path.read_bytes())
    content[partition_start() + offset] ^= mask
    return bytes(content)


def test_the_image_itself_boots(image: Made, tmp_path: Path) -> None:
    """Undamaged, it gets as far as its boxes."""
    outcome = boot(tmp_path, image.path.read_bytes(), until="box quiet stopped: halted with interrupts off")
    assert "terrane| box 1 quiet: open, 2 MiB" in outcome.serial
    assert "terrane| box quiet stopped: halted with interrupts off" in outcome.serial


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_of_an_entry_is_refused(image: Made, tmp_path: Path, kind: str) -> None:
    """Sampled positions: the line names the kind, the entry, its bytes in the partition, and both hashes."""
    source = random.Random(kind)
    for offset, size in source.sample(entry_places(image)[kind] * SAMPLES, SAMPLES):
        said = refused(tmp_path, flipped(image, offset + source.randrange(size), 1 << source.randrange(8)))
        pattern = (
            rf"terrane\| refused: {KINDS[kind]}: entry \d+, partition bytes {offset:#018x} to {offset + size - 1:#018x}: "
            r"expected SHA-256 ([0-9a-f]{64}), found ([0-9a-f]{64})"
        )
        assert said[0] == CHECKING
        found = re.fullmatch(pattern, said[-2])
        assert found is not None, said
        assert found[1] != found[2]


@pytest.mark.parametrize(("low", "high"), [(0, 64), (64, 1024), (1024, 8128), (8128, 8160), (8160, 8192)])
def test_a_flipped_bit_of_the_header_is_refused(image: Made, tmp_path: Path, low: int, high: int) -> None:
    """Its fields, its rows, its unused bytes, both halves of its signature."""
    source = random.Random(low)
    said = refused(tmp_path, flipped(image, source.randrange(low, high), 1 << source.randrange(8)))
    assert said == [
        CHECKING,
        "terrane| refused: header: signature: expected one by the key in the loader, found another",
        STOPPED,
    ]


def test_an_image_signed_by_another_key_is_refused(image: Made, tmp_path: Path) -> None:
    """A whole, good image of another owner's in this loader."""
    other = dataclasses.replace(ANY_KEYS, header=forge.seed_key("another owner"))
    theirs = made.make(tmp_path, [WITNESS], signed_by=other)
    said = refused(tmp_path, theirs.path.read_bytes())
    assert said[-2] == "terrane| refused: header: signature: expected one by the key in the loader, found another"


@pytest.mark.parametrize("kept", ["half of the header", "half of the monitor", "half of the last segment"])
def test_a_truncated_image_is_refused(image: Made, tmp_path: Path, kept: str) -> None:
    """A disk that ends too early: stage 2 cannot read it, or what is missing reads as zeros and is no longer what was signed."""
    places = entry_places(image)
    offset, size = {
        "half of the header": (0, 8192),
        "half of the monitor": places["MONITOR"][0],
        "half of the last segment": places["SEGMENT"][-1],
    }[kept]
    said = refused(tmp_path, image.path.read_bytes()[: partition_start() + offset + size // 2])
    read_error = "terrane| refused: stage 2: Terrane partition: expected it read, found a disk error"
    assert said[-2] == read_error or re.match(r"terrane\| refused: (header|monitor|descriptor|segment): ", said[-2]), (
        said
    )

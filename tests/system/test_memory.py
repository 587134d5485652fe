"""All of a machine's memory, taken by the debugger while the boxes work: who can reach what, and what is left of the loader's secrets."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from boot.handoff import DIRECT_MAP
from pipeline import chain, keys
from tests.boot.tables import walk
from tests.system import made, mutants, snapshot
from tests.system.machine import BOCHS, Stop, dump
from tests.system.made import ANY_KEYS, INTRUDER, MACHINE_MIB, MEBIBYTE, WITNESS, Made
from tests.system.mutants import Mutant
from tests.system.snapshot import Snapshot, pages_of, walk_ept
from vmm.memory import FRAME_SHIFT, FRAMES, FrameState

pytestmark = [pytest.mark.t2, pytest.mark.slow, pytest.mark.skipif(BOCHS is None, reason="Bochs is not installed")]
AT_WORK = 70_000_000  # instructions: both boxes have begun
CANARY_PAGE = re.compile(rb"([\x80-\xff]ENTIW\0\0){512}", re.DOTALL)  # guests/canaries.py, little-endian
ALL_RAM = Mutant(  # at guest-physical 1 GiB, the first GiB of the machine
    "vmm/vmx/ept.py",
    "    for index in upto(frames.length):\n",
    "    table_at(level_3).entries[1] = u64(0xB7)\n    for index in upto(frames.length):\n",
)
NEIGHBOUR = Mutant(
    "vmm/vmx/ept.py", "leaf_entry(frames[index])\n    return", "leaf_entry(frames[index] + 2)\n    return"
)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made.make(tmp_path_factory.mktemp("image"), [WITNESS, INTRUDER])


@pytest.fixture(scope="module")
def working(image: Made, tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    found = snapshot.take(tmp_path_factory.mktemp("working"), image, after=AT_WORK)
    assert "intruder| intruder starts" in found.serial
    assert "witness| witness ready" in found.serial
    return found


def monitor_pages(taken: Snapshot) -> set[int]:
    """Pages that belong to the monitor beyond doubt: its image, its page tables, and what its structures point at."""
    pages = set(range(snapshot.MONITOR_PLACE >> 12, (snapshot.MONITOR_PLACE + snapshot.LARGE_PAGE) >> 12))
    pages |= table_pages(taken, taken.root, 3)
    for box in taken.boxes():
        vcpu = box["vcpu"]
        pages |= {table >> 12 for table in walk_ept(taken, vcpu["ept_pointer"])[1]}
        pages.add(vcpu["control_block"] >> 12)
        pages.add(taken.physical(vcpu["switch"]["xsave_area"]) >> 12)
        pages.add(taken.physical(box["memory"]["frames"]) >> 12)
    pages.add(taken.physical(taken.load(taken.physical(taken.made.symbol("vmm.box.BOXES")))) >> 12)
    bitmaps = taken.physical(taken.made.symbol("vmm.vmx.vmcs.BITMAPS"))
    return pages | {taken.load(bitmaps) >> 12, taken.load(bitmaps + 8) >> 12, (taken.load(bitmaps + 8) >> 12) + 1}


def table_pages(taken: Snapshot, table: int, level: int) -> set[int]:
    """The pages of 4-level page tables themselves."""
    entries = [taken.load(table + 8 * index) for index in range(512)] if level else []
    below = [entry & snapshot.ADDRESS for entry in entries if entry & 1 and not entry & 0x80]
    return {table >> 12}.union(*(table_pages(taken, place, level - 1) for place in below))


def frame_rows(taken: Snapshot) -> list[tuple[int, int]]:
    """(state, owner) of each frame of the machine, in the ownership table."""
    start = taken.physical(taken.made.symbol("vmm.memory.FRAMES"))
    rows = [taken.load(start + 4 * number, 4) for number in range(MACHINE_MIB * MEBIBYTE >> FRAME_SHIFT)]
    assert FRAMES.length >= len(rows)
    return [(row & 0xFF, row >> 8 & 0xFF) for row in rows]


def check_separation(taken: Snapshot) -> None:
    """No page of the monitor in any EPT, no page in two, every leaf a frame that the ownership table gives to that box."""
    own, rows = monitor_pages(taken), frame_rows(taken)
    reached: dict[str, set[int]] = {}
    for box in taken.boxes():
        label = box["label"].rstrip(b"\0").decode()
        leaves, _ = walk_ept(taken, box["vcpu"]["ept_pointer"])
        pages = pages_of(leaves)
        assert not pages & own, f"{label} reaches the monitor"
        for other, theirs in reached.items():
            assert not pages & theirs, f"{label} reaches {other}"
        reached[label] = pages
        for page in pages:
            row = rows[page << 12 >> FRAME_SHIFT]
            assert row == (int(FrameState.OWNED.value), box["index"]), (
                f"{label} reaches a frame that is not its own: {row}"
            )
        assert {*leaves} == set(range(0, box["memory"]["size"], snapshot.LARGE_PAGE)), label
        assert taken.load(box["vcpu"]["control_block"], 4) != 0
        vmcs = taken.memory[box["vcpu"]["control_block"] :][:4096]
        assert box["vcpu"]["ept_pointer"].to_bytes(8, "little") in vmcs  # the processor uses the tables that we walked
    assert len(reached) == 2


def test_boxes_reach_neither_the_monitor_nor_each_other(working: Snapshot) -> None:
    """The EPTs, walked here."""
    check_separation(working)


def test_the_witnesss_page_is_in_its_own_tables_alone(working: Snapshot) -> None:
    """The page of canaries lies once in memory: in the witness."""
    places = [found.start() for found in CANARY_PAGE.finditer(working.memory)]
    assert len(places) == 1
    reaching = [
        box["label"].rstrip(b"\0")
        for box in working.boxes()
        if places[0] >> 12 in pages_of(walk_ept(working, box["vcpu"]["ept_pointer"])[0])
    ]
    assert reaching == [b"witness"]


@pytest.mark.parametrize(
    ("mutant", "words"),
    [(ALL_RAM, "witness reaches the monitor"), (NEIGHBOUR, "witness reaches a frame that is not its own")],
    ids=["all RAM mapped", "frames shifted"],
)
def test_the_walk_sees_a_broken_monitor(tmp_path: Path, mutant: Mutant, words: str) -> None:
    """The same check fails for a monitor that maps too much, or what is another's."""
    (tmp_path / "machine").mkdir()
    broken = mutants.monitor_of(tmp_path, mutant)
    image = made.make(tmp_path, [WITNESS, INTRUDER], other_monitor=broken)
    image.programs["monitor"] = mutants.symbols_of(tmp_path)
    taken = snapshot.take(tmp_path / "machine", image, after=20_000_000)
    with pytest.raises(AssertionError, match=words):
        check_separation(taken)


def secrets_of_the_loader(image: Made) -> dict[str, bytes]:
    """What the loader had to erase: the development secret, the device's seed, and what Ed25519 makes of it; in halves too."""
    secret = ANY_KEYS.development_secret
    seed = keys_seed(secret)
    expanded = hashlib.sha512(seed).digest()
    scalar = bytes([expanded[0] & 0xF8, *expanded[1:31], expanded[31] & 0x7F | 0x40])
    values = {"development secret": secret, "device seed": seed, "scalar": scalar, "prefix": expanded[32:]}
    halves = {f"{name}, half {n}": value[16 * n : 16 * n + 16] for name, value in values.items() for n in (0, 1)}
    return values | halves


def keys_seed(secret: bytes) -> bytes:
    """The seed of the key pair that Open DICE derives from a secret."""
    return chain.key_of(secret).private_bytes_raw()


def monitor_cdi(image: Made) -> chain.Cdi:
    """The monitor's CDIs, derived on the host."""
    header_key = keys.public_bytes(ANY_KEYS.header)
    layer = image.expected.monitor
    inputs = chain.Inputs(chain.sha512(layer.row), chain.sha512(layer.configuration), chain.sha512(header_key), 2)
    secret = ANY_KEYS.development_secret
    return chain.derive(chain.Cdi(secret, secret), inputs)


def test_nothing_of_the_loaders_secrets_is_left(image: Made, working: Snapshot) -> None:
    """All of RAM, while the boxes run. The search is shown to find: the monitor's own secrets are there, in its own pages."""
    for name, value in secrets_of_the_loader(image).items():
        assert value not in working.memory, name
    own = monitor_pages(working)
    cdi = monitor_cdi(image)
    for value in (cdi.attest, cdi.seal):
        places = [found.start() for found in re.finditer(re.escape(value), working.memory)]
        assert places
        assert {place >> 12 for place in places} <= own


def test_the_secrets_are_found_while_the_loader_has_them(image: Made, tmp_path: Path) -> None:
    """The same search, in the middle of the loader: it finds the development secret and the device's seed."""
    where = int(image.programs["loader"].symbols["dsl.std.ed25519.ed25519_sign"][0])
    found, _ = dump(tmp_path, image, Stop(where), {"ram": (0, MACHINE_MIB * MEBIBYTE - (1 << 20))})
    secrets = secrets_of_the_loader(image)
    assert secrets["development secret"] in found["ram"]
    assert secrets["device seed"] in found["ram"]


def test_the_direct_map_leaves_the_monitor_out(working: Snapshot) -> None:
    """The monitor's own page tables: its image is mapped once, and nothing is writable and executable."""
    mapped = dict(walk(working.load, working.root))
    assert not any(writable and executable for _, writable, executable in mapped.values())
    assert DIRECT_MAP + snapshot.MONITOR_PLACE not in mapped

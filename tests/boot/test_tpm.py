"""The loader's TPM code as emitted bytes: against swtpm behind FIFO and CRB registers, and against devices that do what they should not."""

from __future__ import annotations

import hashlib
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from boot.handoff import TpmState
from dsl.std.tpm import TpmFault
from pipeline import chain, event_log, provision, tpm
from pipeline.swtpm import Swtpm
from pipeline.tpm_tools import TpmTools
from tests import needs
from tests.boot.tpm_bench import FLOOR, SECRET, Bench, pcr_values, provisioned
from tests.boot.tpm_device import BASE, Behaviour, Crb, Fifo
from tests.boot.tpm_program import BOUND
from tests.boot.tpm_world import NO_ROWS, PARTS, Refused, World, acpi_tables

pytestmark = pytest.mark.t1
with_swtpm = needs.skip_without(needs.tpm)
DEVICES: dict[str, type[Fifo | Crb]] = {"fifo": Fifo, "crb": Crb}
DEVELOPMENT = bytes(range(32))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """One TPM, provisioned as its owner does it."""
    return provisioned(tmp_path_factory.mktemp("tpm"))


@with_swtpm
@pytest.mark.parametrize("kind", DEVICES)
def test_a_provisioned_tpm_gives_its_secret_once(bench: Bench, kind: str) -> None:
    """The secret that was certified; the log's replay is the TPM's PCRs; the quote is about them and this chain; then all is locked."""
    with bench.powered() as line:
        table = bench.table(line, 9, 7)  # the second row is this image's
        before = pcr_values(line)
        world = World(DEVICES[kind](line), approvals=table)
        assert world.boot() == TpmState.READY, world.lines()
        secret = world.object(SECRET)
        assert chain.key_of(secret).public_key().public_bytes_raw() == bench.machine.device_key
        assert world.number("posture", 8) == 0x100 | 2 | 1
        values = pcr_values(line)
        log = world.log()
        events = event_log.parse(log)
        replayed = {pcr: before[pcr] for pcr in range(16)}
        for event in events:
            digest = event.digests[event_log.SHA256]
            assert digest == hashlib.sha256(event.data).digest()
            replayed[event.pcr] = event_log.extend(replayed[event.pcr], digest)
        assert replayed == values
        assert len(event_log.before_end(log, events)) == len(events) - 1
        assert [event.pcr for event in events] == [8, 9, 8, 8, 4]

        sizes = struct.unpack("<II", world.handoff("quote", 8))
        attest, signature = world.handoff("quote", 584)[8:][: sizes[0]], world.handoff("quote", 584)[264:][: sizes[1]]
        assert tpm.parse_public(bench.machine.attestation_key).verify(signature, attest)
        quote = tpm.parse_quote(attest)
        assert (quote.extra_data, quote.pcr_digest) == (bytes([int(BOUND)]) * 32, tpm.pcr_digest(values, 0xFFFF))

        again = World(DEVICES[kind](line), approvals=bench.table(line, 7))
        assert again.boot() == TpmState.WITHHELD, "locked until reset, even with an approval for what is measured now"
        assert again.object(SECRET) == bytes(32)
        assert "error 0x0000000100000148" in again.lines()[0]  # TPM_RC_NV_LOCKED
    with bench.powered() as line:
        world = World(DEVICES[kind](line), approvals=bench.table(line, 7))
        assert world.boot() == TpmState.READY
        assert world.object(SECRET) == secret


@with_swtpm
def test_who_does_not_get_the_secret(bench: Bench, tmp_path: Path) -> None:
    """No table, another key's, another version's, another boot's; each ends with the development secret, marked, and PCR 4 closed."""
    other = provision.load_owner_keys(tmp_path)
    with bench.powered() as line:
        good = bench.table(line, 7)
        stranger = Bench(bench.folder, other, bench.machine).table(line, 7)
    elsewhere = bench.table(lambda command: bytes(32), 7)  # type: ignore[arg-type]
    broken = good[:140] + bytes([good[140] ^ 1]) + good[141:]
    for table, version in (
        (NO_ROWS, 7),
        (stranger, 7),
        (elsewhere, 7),
        (broken, 7),
        (good, 8),
        (good[:8].swapcase() + good[8:], 7),
    ):
        with bench.powered() as line:
            before = pcr_values(line)[4]
            world = World(Fifo(line), approvals=table, security_version=version)
            assert world.boot() == TpmState.WITHHELD, world.lines()
            assert world.object(SECRET) == bytes(32)
            assert world.number("posture", 8) == 0x600 | 1
            assert "NO DEVICE SECRET" in world.lines()[1]
            assert pcr_values(line)[4] != before


@with_swtpm
def test_no_other_answer_is_handed_on_as_a_quote(bench: Bench) -> None:
    """The answer with the secret, once more where the quote's should be: nothing of it reaches the handoff."""
    read, quote = b"\0\0\x01\x4e", b"\0\0\x01\x58"
    answers: list[bytes] = []

    with bench.powered() as line:

        def replaying(command: bytes) -> bytes:
            if command[6:10] == quote:
                return answers[-1]
            answered = line(command)
            if command[6:10] == read:
                answers.append(answered)
            return answered

        world = World(Fifo(replaying), approvals=bench.table(line, 7))
        assert world.boot() == TpmState.READY
        secret = world.object(SECRET)
        assert secret in answers[-1]
        assert struct.unpack("<II", world.handoff("quote", 8)) == (0, 0)
        assert secret not in world.handoff("quote", 584)


@with_swtpm
def test_a_tpm_that_seems_to_lack_a_bank_is_closed(bench: Bench) -> None:
    """One changed byte hides the SHA-256 bank: the boot goes on without the TPM, whose secret nobody gets until reset."""
    with bench.powered() as line:
        before = pcr_values(line)[4]

        def hidden(command: bytes) -> bytes:
            return without_banks(line(command)) if command[6:10] == b"\0\0\x01\x7a" else line(command)

        assert World(Crb(hidden), approvals=bench.table(line, 7)).boot() == TpmState.UNSUPPORTED
        assert pcr_values(line)[4] != before


@with_swtpm
def test_below_the_floor_nothing_boots(bench: Bench, tmp_path: Path) -> None:
    """Whatever the header says of TPMs; the floor itself does; raising it refuses what booted before."""
    shutil.copytree(bench.folder, tmp_path / "state")
    mine = Bench(tmp_path / "state", bench.owner, bench.machine)
    for version, refused in ((FLOOR - 1, True), (FLOOR, False)):
        with mine.powered() as line:
            world = World(Crb(line), approvals=mine.table(line, FLOOR), security_version=version)
            if not refused:
                assert world.boot() == TpmState.READY
                continue
            before = pcr_values(line)[4]
            with pytest.raises(
                Refused, match=rf"security version: expected at least 0x{FLOOR:016x} .*, found 0x{version:016x}"
            ):
                world.boot()
            assert pcr_values(line)[4] != before, "where the refusal is for a changed answer, the secret is closed, too"
    with Swtpm(mine.folder, for_tools=True) as software, TpmTools(software.tcti) as tools:
        provision.raise_floor(tools, mine.machine.counter_base, FLOOR + 1)
    with mine.powered() as line, pytest.raises(Refused, match="security version: expected at least"):
        World(Crb(line), approvals=mine.table(line, FLOOR), security_version=FLOOR).boot()


@with_swtpm
def test_a_tpm_that_is_required(bench: Bench) -> None:
    """Header flag 2: without the TPM's secret nothing boots; with it, it does."""
    with bench.powered() as line:
        assert World(Fifo(line), approvals=bench.table(line, 7), flags=2).boot() == TpmState.READY
    with bench.powered() as line:
        before = pcr_values(line)[4]
        with pytest.raises(Refused, match=r"the header wants a TPM's: .* found 0x0000000000000006"):
            World(Fifo(line), flags=2).boot()
        assert pcr_values(line)[4] != before
    with pytest.raises(Refused, match="found 0x0000000000000000"):
        World(None, acpi=acpi_tables(tpm=False), flags=2).boot()


def answer(code: int = 0, content: bytes = b"", tag: int = 0x8001) -> bytes:
    """An answer."""
    return struct.pack(">HII", tag, 10 + len(content), code) + content


class Scripted:
    """A TPM that knows just enough to be looked at: lock-out, banks, PCRs. `changes`: by command code, another answer."""

    def __init__(self, changes: dict[int, Callable[[bytes], bytes]] | None = None) -> None:
        self.changes = changes or {}
        self.seen: list[int] = []

    def __call__(self, command: bytes) -> bytes:
        code = struct.unpack_from(">I", command, 6)[0]
        self.seen.append(code)
        good = self.usual(code, command)
        return self.changes[code](good) if code in self.changes else good

    def usual(self, code: int, command: bytes) -> bytes:
        if code == 0x17A and command[10:14] == bytes.fromhex("00000006"):
            return answer(content=struct.pack(">BIIII", 0, 6, 1, 0x200, 0))
        if code == 0x17A:
            return answer(content=struct.pack(">BIIHB3s", 0, 5, 1, 0xB, 3, b"\xff\xff\xff"))
        if code == 0x17E:
            return answer(content=struct.pack(">I", 9) + command[10:20] + struct.pack(">IH", 1, 32) + b"\x11" * 32)
        if code == 0x13C:
            digests = struct.pack(">IH", 1, 0xB) + hashlib.sha256(command[29:]).digest()
            return answer(content=struct.pack(">I", len(digests)) + digests + bytes(5), tag=0x8002)
        return answer(0x18B)


def without_banks(good: bytes) -> bytes:
    return good.replace(b"\xff\xff\xff", bytes(3))


def locked_out(good: bytes) -> bytes:
    return good[:-4] + struct.pack(">I", 1 << 9) if good[14] == 6 else good


def fault(found: TpmFault) -> str:
    """The end of the line that a fault gets."""
    return f"error 0x{int(found.value):016x}"


def scripted(code: int, change: Callable[[bytes], bytes], device: type[Fifo | Crb] = Fifo) -> Callable[[], World]:
    """A boot before a scripted TPM, of which one command's answers are changed."""
    return lambda: World(device(Scripted({code: change})))


LOOK, READ, EXTEND = 0x17A, 0x17E, 0x13C
State = TpmState
STATES: list[tuple[str, Callable[[], World], TpmState, str]] = [
    ("no table", lambda: World(None, acpi=acpi_tables(tpm=False)), State.ABSENT, "loader: TPM: none"),
    ("a method without driver", lambda: World(None, acpi=acpi_tables(2, BASE)), State.UNSUPPORTED, "bank 0x0000000000000002"),
    ("an empty bus", lambda: World(None), State.BROKEN, fault(TpmFault.NO_DEVICE)),
    ("above 4 GiB", lambda: World(None, acpi=acpi_tables(7, 1 << 40)), State.BROKEN, fault(TpmFault.BUFFERS)),
    ("not provisioned", lambda: World(Fifo(Scripted())), State.UNPROVISIONED, "error 0x000000010000018b"),
    ("zeros in PCRs", scripted(READ, lambda good: good[:-32] + bytes(32)), State.PCRS, "all zeros or all ones"),
    ("ones in PCRs", scripted(READ, lambda good: good[:-32] + b"\xff" * 32, Crb), State.PCRS, "all zeros or all ones"),
    ("locked out", scripted(LOOK, locked_out), State.LOCKED_OUT, "locked out"),
    ("no SHA-256", scripted(LOOK, lambda good: good.replace(b"\0\x0b\3", b"\0\4\3")), State.UNSUPPORTED, "bank 0x000000000000000b"),
    ("a bank without PCRs", scripted(LOOK, without_banks), State.UNSUPPORTED, "bank 0x000000000000000b"),
    ("failure mode", scripted(LOOK, lambda _: answer(0x101)), State.BROKEN, "error 0x0000000100000101"),
    ("extends fail", scripted(EXTEND, lambda _: answer(0x101), Crb), State.BROKEN, "error 0x0000000100000101"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "state", "line"), [row[1:] for row in STATES], ids=[row[0] for row in STATES])
def test_each_state_has_its_line_and_its_mark(make: Callable[[], World], state: TpmState, line: str) -> None:
    """The boot goes on with another secret, and says so: on the serial line, in the posture, in the handoff."""
    world = make()
    assert world.boot() == state, world.lines()
    assert line in world.lines()[0]
    assert "NO DEVICE SECRET" in world.lines()[1], "the test's image put none into SECRET"
    assert world.number("posture", 8) == int(state.value) << 8 | 1
    used = state in (TpmState.UNPROVISIONED, TpmState.PCRS, TpmState.LOCKED_OUT)
    assert (world.number("tpm_owner", 4), world.number("quote", 4)) == (int(used), 0)
    if used:
        assert len(event_log.parse(world.log())) == len(PARTS) + 2
    else:
        assert world.number("event_log_size", 8) == 0


def test_acpi_tables_that_are_damaged() -> None:
    """Whatever firmware wrote there: the search ends, nothing above 4 GiB is looked at, and a table whose sum is wrong is none."""
    source, found = random.Random(4), dict.fromkeys(TpmState, 0)
    good = acpi_tables()
    heads = [*range(36), *range(256, 256 + 52), *range(512, 548), *range(768, 768 + 64)]
    for _ in range(150):
        damaged = bytearray(good)
        for _ in range(source.choice((1, 1, 2, 4))):
            damaged[source.choice(heads)] = source.choice((0, 1, 0x7F, 0x80, 0xFF, source.randrange(256)))
        if source.random() < 0.8:  # with sums that are right again
            for at, size in ((0, 20), (0, 36), (256, 52), (512, 56), (768, 64)):
                place = at + (32 if size == 36 else 8 if size == 20 else 9)
                damaged[place] = damaged[place] - sum(damaged[at : at + size]) & 0xFF
        found[World(Fifo(Scripted()), acpi=bytes(damaged)).boot()] += 1
    assert found[TpmState.ABSENT] > 20
    assert found[TpmState.UNPROVISIONED] > 20, found


FIFO_FAULTS = [
    (Behaviour(stuck={0: 0}), TpmFault.NO_LOCALITY),  # never valid
    (Behaviour(stuck={0: 0x80}), TpmFault.NO_LOCALITY),  # never active
    (Behaviour(stuck={0: 0x81}), TpmFault.NO_LOCALITY),
    (Behaviour(stuck={0x18: 0}), TpmFault.NOT_READY),
    (Behaviour(stuck={0x18: 0xC0}), TpmFault.TAKES_TOO_FEW),  # no burst
    (Behaviour(stuck={0x18: 0xFFFFFFFF}), TpmFault.TAKES_TOO_MANY),
    (Behaviour(stuck={0x18: 0x8C0}), TpmFault.TAKES_TOO_FEW),  # it expects nothing
    (Behaviour(takes=5), TpmFault.TAKES_TOO_FEW),
    (Behaviour(takes=0), TpmFault.TAKES_TOO_FEW),
    (Behaviour(hungry=True), TpmFault.TAKES_TOO_MANY),
    (Behaviour(answers=False), TpmFault.NO_ANSWER),
    (Behaviour(delay=1 << 30), TpmFault.NO_ANSWER),
    (Behaviour(gives=0), TpmFault.NO_ANSWER),
    (Behaviour(gives=8), TpmFault.ANSWER_SHORT),
    (Behaviour(gives=16), TpmFault.ANSWER_SHORT),
    (Behaviour(more=1), TpmFault.ANSWER_LONG),
    (Behaviour(more=3000), TpmFault.ANSWER_LONG),
]
CRB_FAULTS = [
    (Behaviour(stuck={0x0C: 0}), TpmFault.NO_LOCALITY),
    (Behaviour(stuck={0x40: 1}), TpmFault.NOT_READY),
    (Behaviour(stuck={0x44: 1}), TpmFault.NOT_READY),
    (Behaviour(stuck={0x4C: 1}), TpmFault.NO_ANSWER),
    (Behaviour(answers=False), TpmFault.NO_ANSWER),
    (Behaviour(delay=1 << 30), TpmFault.NO_ANSWER),
    (Behaviour(stuck={0x40: 2}), TpmFault.NOT_READY),  # it does not rest
    (Behaviour(stuck={0x60: 1}), TpmFault.BUFFERS),
    (Behaviour(stuck={0x6C: 1}), TpmFault.BUFFERS),
    (Behaviour(stuck={0x58: 9}), TpmFault.BUFFERS),
    (Behaviour(stuck={0x58: 20}), TpmFault.TAKES_TOO_FEW),
    (Behaviour(stuck={0x64: 0xFFFFFFFF}), TpmFault.BUFFERS),
    (Behaviour(stuck={0x64: 20}), TpmFault.ANSWER_SIZE),
    (Behaviour(stuck={0x5C: 0}), TpmFault.BUFFERS),
    (Behaviour(stuck={0x68: 0xFFFFF000}), TpmFault.BUFFERS),
]
FAULTS = [(Fifo, *row) for row in FIFO_FAULTS] + [(Crb, *row) for row in CRB_FAULTS]


@pytest.mark.parametrize(("device", "behaviour", "found"), FAULTS, ids=str)
def test_registers_that_misbehave(device: type[Fifo | Crb], behaviour: Behaviour, found: TpmFault) -> None:
    """A fault of its own name, no hang, and the TPM left alone from there on."""
    world = World(device(Scripted(), behaviour))
    assert world.boot() == TpmState.BROKEN
    assert world.lines()[0].endswith(f"not the answers of a TPM; {fault(found)}")
    assert (world.number("tpm_owner", 4), world.number("posture", 8)) == (0, 0x501)


@pytest.mark.parametrize("device", [Fifo, Crb])
@pytest.mark.parametrize("delay", [1, 100, 7000])
def test_a_slow_tpm_is_waited_for(device: type[Fifo | Crb], delay: int) -> None:
    """As long as the standard lets it take."""
    assert World(device(Scripted(), Behaviour(delay=delay))).boot() == TpmState.UNPROVISIONED


def test_a_command_is_repeated_where_the_tpm_asks_for_it() -> None:
    """TPM_RC_RETRY, YIELDED, TESTING; but not for ever."""
    for code in (0x922, 0x908, 0x90A):
        asked = [answer(code)] * 3

        def patient(good: bytes, waiting: list[bytes] = asked) -> bytes:
            return waiting.pop() if waiting else good

        assert scripted(LOOK, patient)().boot() == TpmState.UNPROVISIONED
        assert not asked
        world = scripted(LOOK, lambda _, again=answer(code): again)()  # type: ignore[misc]
        assert world.boot() == TpmState.BROKEN
        assert f"error 0x{1 << 32 | code:016x}" in world.lines()[0]

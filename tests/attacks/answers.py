"""Changed answers of a TPM, by the thousand: the loader's emitted TPM code in Unicorn, before registers, a proxy, and swtpm.

`python -m tests.attacks.answers --count 10000` says how many answers were changed, how, and what became of the boots.
"""

from __future__ import annotations

import functools
import random
import re
import shutil
import socket
import struct
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from boot.handoff import TpmState
from pipeline.errors import UsageError
from pipeline.swtpm import Swtpm
from tests import needs, parallel
from tests.attacks.changes import HEAD, change
from tests.attacks.proxy import SET_DATA_FD, message
from tests.boot.tpm_bench import SECRET, pcr_event, pcr_values, provisioned
from tests.boot.tpm_device import BASE, Crb, Fifo
from tests.boot.tpm_world import Refused, World
from tests.parallel import Died, Progress, results

INIT = struct.pack(">II", 2, 0)
STARTUP = bytes.fromhex("8001 0000000c 00000144 0000")
READ_PUBLIC = bytes.fromhex("8001 0000000e 00000169 01805401")
READ_LOCKED = 1 << 28  # TPMA_NV_READLOCKED
COMMANDS = 38  # of a good boot
RATE = 0.15  # of the answers, in the boots with several changes
DELAYS_MS = (50, 300, 1000, 7000, 9000, 30000)  # the loader waits 8000
VERSION = 7
SECONDS = 120


class Tpm:
    """swtpm on a control line of its own, with which it ends."""

    def __init__(self, folder: Path) -> None:
        self.software = Swtpm(folder).__enter__()
        self.control = socket.socket(socket.AF_UNIX)
        while self.control.connect_ex(str(self.software.socket)):  # its socket is there before it listens
            assert self.software.process is not None
            assert self.software.process.poll() is None, "swtpm ended"
            time.sleep(0.01)
        self.data, given = socket.socketpair()
        socket.send_fds(self.control, [SET_DATA_FD], [given.fileno()])
        given.close()
        self.expect_success()

    def expect_success(self) -> None:
        """Read the answer to what was asked on the control line."""
        found = self.control.recv(4)
        assert found == bytes(4), found

    def reset(self) -> None:
        """Power on; firmware measures."""
        self.control.sendall(INIT)
        self.expect_success()
        for command in (STARTUP, *(pcr_event(pcr, b"f") for pcr in range(8))):
            assert self(command)[6:HEAD] == bytes(4)

    def __call__(self, command: bytes) -> bytes:
        self.data.sendall(command)
        return message(self.data)


@dataclass
class Subject:
    """A provisioned machine: its TPM's folder, its secret, its approvals, and PCR 4 before the loader."""

    folder: Path
    table: bytes
    secret: bytes
    measured: bytes


@dataclass
class Wire:
    """Between the registers and the TPM."""

    tpm: Tpm
    choice: random.Random
    secret: bytes
    told: bool = False  # whether an answer with the secret was replayed
    device: Fifo | Crb = field(init=False)
    changes: Counter[str] = field(default_factory=Counter)
    commands: list[bytes] = field(default_factory=list)
    seen: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.only = self.choice.randrange(COMMANDS) if self.choice.random() < 0.75 else -1

    def __call__(self, command: bytes) -> bytes:
        answer = self.tpm(command)
        self.device.does.delay = 0
        if len(self.commands) == self.only or (self.only < 0 and self.choice.random() < RATE):
            changed = change(answer, self.seen, self.choice, DELAYS_MS, fits=False)
            self.changes[changed.kind] += 1
            self.device.does.delay = changed.late_ms  # a look is a millisecond
            answer = changed.answer
            self.told |= changed.kind == "replayed" and self.secret in answer
        self.commands.append(command)
        self.seen += [answer] if answer else []
        return answer


@dataclass
class Found:
    """What became of a boot. `wrong`: what must not be."""

    changes: Counter[str] = field(default_factory=Counter)
    end: str = ""
    wrong: str = ""


def boot(subject: Subject, tpm: Tpm, seed: int) -> Found:
    """One boot before a TPM that was just reset."""
    choice = random.Random(seed)
    tpm.reset()
    wire = Wire(tpm, choice, subject.secret)
    wire.device = choice.choice((Fifo, Crb))(wire)
    world = World(wire.device, approvals=subject.table, security_version=VERSION)
    found = Found(wire.changes)
    try:
        found.end = world.boot().name
    except Refused as refused:
        found.end = "refused"
        if "security version" not in str(refused):
            found.wrong = f"fault: {refused}"
    except AssertionError as error:
        found.end, found.wrong = "fault", f"hang or fault: {error}"
        return found
    places = holders(world, subject.secret)
    allowed = {SECRET} if world.number("posture", 8) & 2 != 0 else set()
    if wire.told:
        allowed.add(
            "dsl.std.tpm.TPM"
        )  # the line said it once more, as something else; the loader ends by wiping all of its memory
    if places - allowed or subject.secret in b"".join([*wire.commands, world.said]):
        found.wrong = f"secret released: {places}"
    locked = struct.unpack_from(">I", tpm(READ_PUBLIC), HEAD + 8)[0] & READ_LOCKED
    if not locked and pcr_values(tpm)[4] == subject.measured:
        found.wrong = "secret released: a policy over PCR 4 can still be met, and it is not locked"
    return found


def holders(world: World, secret: bytes) -> set[str]:
    """Where in memory the secret is: names of objects, or addresses."""
    symbols = world.machine.program.symbols
    places = set()
    for start, end, _ in world.machine.engine.mem_regions():
        memory = world.machine.read(start, end - start + 1) if start != BASE else b""  # the registers are no memory
        for at in (match.start() for match in re.finditer(re.escape(secret), memory)):
            names = [name for name, (place, size, _) in symbols.items() if place <= start + at < place + size]
            places.add(next((name for name in names if not name.startswith("linker.")), hex(start + at)))
    return places


def subject_in(folder: Path) -> Subject:
    """A machine, provisioned and approved; its secret is read by a good boot."""
    bench = provisioned(folder)
    with bench.powered() as line:
        table, measured = bench.table(line, VERSION), pcr_values(line)[4]
        count: list[bytes] = []
        device = Fifo(lambda command: count.append(command) or line(command))  # type: ignore[func-returns-value]
        world = World(device, approvals=table, security_version=VERSION)
        assert world.boot() == TpmState.READY, world.lines()
        assert len(count) == COMMANDS
        assert holders(world, world.object(SECRET)) == {SECRET}, "the search finds what is there"
    return Subject(bench.folder, table, world.object(SECRET), measured)


@functools.cache
def my_tpm(origin: Path, folder: Path) -> Tpm:
    """A copy of a TPM, in the folder of the process that uses it."""
    return Tpm(Path(shutil.copytree(origin, folder / "state")))


@dataclass
class Total:
    """What a campaign came to."""

    boots: int = 0
    changes: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    wrong: dict[int, str] = field(default_factory=dict)

    def line(self) -> str:
        kinds = {name: sum(name in words for words in self.wrong.values()) for name in ("hang", "fault", "released")}
        return (
            f"{self.changes.total()} answers of a TPM changed {dict(self.changes)} in {self.boots} boots of the emitted bytes: "
            f"hangs or faults {len(self.wrong) - kinds['released']}, secrets released {kinds['released']}; "
            f"{dict(self.ends)}"
        )


def campaign(subject: Subject, first: int, count: int, jobs: int, quiet: bool = False) -> Total:
    """Boots from a seed on, until `count` answers were changed."""
    total, progress = Total(), Progress("boots", quiet)

    def check(seed: int, folder: Path) -> Found:
        return boot(subject, my_tpm(subject.folder, folder), seed)

    while total.changes.total() < count:
        missing = count - total.changes.total()
        start = first + total.boots
        for seed, found in results(range(start, start + -(-missing * 5 // 8)), check, jobs, SECONDS):
            if isinstance(found, Died):
                found = Found(end="fault", wrong=f"hang: died by {found.how}")
            total.boots += 1
            total.changes += found.changes
            total.ends[found.end] += 1
            if found.wrong:
                total.wrong[seed] = found.wrong
                print(f"seed {seed}: {found.wrong}", flush=True)
            progress.tick(total.boots, len(total.wrong))
    return total


def main(argv: list[str] | None = None) -> int:
    options = parallel.options(__doc__, "answers to change").parse_args(argv)
    try:
        needs.tpm()
    except UsageError as missing:
        print(missing)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        total = campaign(subject_in(Path(folder)), options.seed, options.count, options.jobs)
    print(total.line())
    return 1 if total.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

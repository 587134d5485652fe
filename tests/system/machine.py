"""A machine in Bochs for the system tests: what its boxes say, evidence asked of it, and its memory, taken by the debugger."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from pipeline import bochs, console, run
from pipeline.bochs import Bochs, Machine
from tests.system.made import MACHINE_MIB, Made, release_links

BOCHS = shutil.which(bochs.BOCHS)
SECONDS = 300.0  # a loaded host is slow; nothing waits for this long that goes well
SLOW_CLOCK = 8_000_000  # instructions a second of emulated time: the serial line then costs few instructions a byte


class Running:
    """A machine that runs an image. Leaving it ends the machine."""

    def __init__(
        self,
        made: Made,
        *,
        cpu: str = "corei7_skylake_x",
        memory: int = MACHINE_MIB,
        clock: int = SLOW_CLOCK,
        seconds: float = SECONDS,
    ) -> None:
        """`memory` in MiB; `clock`: instructions a second of emulated time; `seconds`: how long to wait for anything."""
        self.made = made
        self.transcript = console.Transcript()
        self.machine = Bochs(Machine(made.path, memory, cpu, clock), self.transcript.feed)
        self.deadline = time.monotonic() + seconds

    def __enter__(self) -> Running:
        """Power on."""
        self.machine.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Power off."""
        self.machine.__exit__(kind, error, trace)

    def wait(self, found: Callable[[], bool], what: str) -> None:
        """Read until `found`. Raises EmulatorError when the time is over; a machine that refuses to go on fails the test."""

        def condition() -> bool:
            refusal = self.transcript.refusal()
            assert refusal is None, refusal
            return found()

        self.machine.wait_for(condition, what, self.deadline - time.monotonic())

    def wait_text(self, box: str, words: str, count: int = 1) -> str:
        """Read until a box has said these words `count` times; returns all that it said."""
        self.wait(lambda: self.said(box).count(words) >= count, f"{words!r} from {box}")
        return self.said(box)

    def said(self, box: str) -> str:
        """What a box has said so far."""
        return self.transcript.said(box)

    def type(self, box: str, words: str) -> None:
        """Give a box the focus and type a line."""
        index = [known.name for known in self.made.expected.boxes].index(box)
        self.machine.send(console.focus(index) + words.encode() + b"\n")

    def evidence(self, box: str, nonce: bytes) -> bytes:
        """Ask a box for evidence; the bundle with the image's release chain."""
        before = len(run.EVIDENCE.findall(self.said(box)))
        self.type(box, f"attest {nonce.hex()}")
        self.wait(lambda: len(run.EVIDENCE.findall(self.said(box))) > before, f"evidence from {box}")
        bundle = bytes.fromhex(run.EVIDENCE.findall(self.said(box))[-1][0].replace("\n", ""))
        return run.with_release_chain(bundle, release_links(self.made, box))


@dataclass(frozen=True)
class Stop:
    """Where the debugger stops the machine: at the first pass of a linear address after so many instructions."""

    address: int
    after: int = 0


CONFIGURATION = bochs.CONFIGURATION.replace("mode=socket-server, dev=127.0.0.1:{port}", "mode=file, dev={serial}")


def dump(
    folder: Path,
    made: Made,
    stop: Stop,
    pieces: dict[str, tuple[int, int]],
    *,
    memory: int = MACHINE_MIB,
    clock: int = SLOW_CLOCK,
    seconds: float = SECONDS,
) -> tuple[dict[str, bytes], str]:
    """Run an image until `stop`; returns the pieces of memory, (linear address, size) in the context of the stop, and the serial output."""
    files = {name: folder / f"{name}.bin" for name in pieces}
    script = [f"sba {stop.after}", "c"] if stop.after else []
    script += [f"lb {stop.address:#x}", "c"]
    script += ["creg"]
    script += [f'writemem "{files[name]}" {address:#x} {size:#x}' for name, (address, size) in pieces.items()]
    (folder / "go.rc").write_text("\n".join([*script, "q"]) + "\n")
    serial = folder / "serial.out"
    copy = folder / "disk.img"
    shutil.copyfile(made.path, copy)
    values = {"cpu": "corei7_skylake_x", "ips": clock, "memory": memory, "host": memory, "disk": copy, "serial": serial}
    values |= {"bios": bochs.BIOS, "vga": bochs.VGA_BIOS, "log": folder / "bochs.log"}
    (folder / "bochsrc").write_text(CONFIGURATION.format(**values))
    with (folder / "stdout").open("wb") as out:
        command = [bochs.BOCHS, "-q", "-f", "bochsrc", "-rc", "go.rc"]
        subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=seconds, check=False
        )
    text = serial.read_text("latin-1") if serial.exists() else ""
    missing = [str(path) for path in files.values() if not path.exists()]
    assert not missing, (missing, text[-500:], (folder / "stdout").read_text("latin-1")[-500:])
    return {name: path.read_bytes() for name, path in files.items()}, text

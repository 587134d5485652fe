"""What exits cost, in monitor instructions: the meter box counts them in Bochs, where a tick of the TSC is an instruction."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline import console
from pipeline.bench_rows import Row, build_image
from pipeline.bochs import Bochs, Machine
from pipeline.emulator import EmulatorError

BOX = "meter"
DONE = "meter done"
MEMORY = 64  # MiB
SECONDS = 120.0
LINE = re.compile(r"^meter: (\S+) (\d+) (\d+)$", re.MULTILINE)
NOTHING = "nothing"
EXITING_INSTRUCTION = 1  # the guest's own, which has its tick too
KVM = "Linux 6.1 KVM on the same Bochs (corei7_skylake_x, mitigations=off)"


@dataclass(frozen=True)
class Exit:
    """One kind of exit. `name`: the row's; `anchor` and its source, or None."""

    name: str
    anchor: float | None
    source: str


EXITS = {
    "cpuid": Exit("cpuid exit, round trip", 966, f"{KVM}; a bare monitor in C that only moves RIP: 55"),
    "vmcall": Exit("vmcall VERSION, round trip", 1002, KVM),
    "rdmsr": Exit("rdmsr of a constant MSR, round trip", 1076, KVM),
    "wrmsr": Exit("wrmsr that is swallowed, round trip", 1112, KVM),
    "out": Exit("out to an absent port, round trip", 3042, f"{KVM}, OUT to user space"),
    "in": Exit("in of a UART register, round trip", 3042, f"{KVM}, OUT to user space"),
    "mmio": Exit("mov from absent memory, round trip", 5764, f"{KVM}, MMIO read to user space"),
}


def measure() -> dict[str, tuple[int, int]]:
    """Boot the meter box alone; for each kind of exit the least and the most ticks. Raises EmulatorError."""
    _, path = build_image(BOX, MEMORY)
    transcript = console.Transcript()
    with Bochs(Machine(path, memory=MEMORY), transcript.feed) as bochs:
        bochs.wait_for(lambda: DONE in transcript.said(BOX), f"{DONE!r} from the box {BOX}", SECONDS)
    found = {kind: (int(least), int(most)) for kind, least, most in LINE.findall(transcript.said(BOX))}
    missing = sorted(({NOTHING} | set(EXITS)) - set(found))
    if missing:
        raise EmulatorError(f"the box {BOX}: expected a line for each of {', '.join(missing)}, found none")
    return found


def rows() -> list[Row]:
    """A row for each kind of exit."""
    found = measure()
    overhead = found[NOTHING][0] + EXITING_INSTRUCTION
    how = (
        "TSC ticks in Bochs (one an instruction) around the instruction in the meter box, least of its rounds,"
        " less those of measuring nothing and the instruction's own; anchor: "
    )
    return [
        Row(exit_.name, found[kind][0] - overhead, exit_.anchor, "instructions", how + exit_.source)
        for kind, exit_ in EXITS.items()
    ]

"""What starting costs, counted by Bochs' debugger, whose time is in instructions: from the loader's first instruction to the first guest's,
by what they were spent on; and a whole Linux boot, exit by exit.
"""

from __future__ import annotations

import bisect
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import console
from pipeline.bench_rows import Row, build_image
from pipeline.bochs import Bochs, Machine
from pipeline.emulator import EmulatorError

SMALL_BOX, SMALL_MEMORY = "meter", 64  # MiB
LINUX_BOX, LINUX_MEMORY = "debian", 256
SECONDS = 900.0
SAMPLE_STEP = (
    251  # instructions from one look at the instruction pointer to the next: prime, so that no loop keeps time with it
)
EXIT_LIMIT = 400_000  # stops that the debugger is told to go on from

STOP = re.compile(
    r"Next at t=(\d+)\n\(0\) \[\S+\] [0-9a-f]+:([0-9a-f]+) \([^)]*\): ([^;\n]*)(?:; \w+\n0x([0-9a-f]+) )?"
)
INSTRUCTION = re.compile(r"^  ([0-9a-f]{16})  [0-9a-f]+ +(\S[^;\n]*?) *(?:;.*)?$", re.MULTILINE)
DATA_PORT = 0x3F8

ENTRY_TARGET = 1_000_000  # DESIGN's number to reach
SHARE_TARGET = 0.3  # per cent
NATIVE_TICKS = 414_000_000

HASHING = ("dsl.std.sha256.",)
SIGNING = (
    "dsl.std.ed25519.",
    "dsl.std.edwards25519.",
    "dsl.std.field25519.",
    "dsl.std.scalar25519.",
    "dsl.std.sha512.",
    "dsl.std.hkdf.",
)
WAITING = ("boot.output.put", "dsl.std.serial.", "vmm.apic.calibrate_timers", "vmm.clock.")
ZEROING, COPYING = "rep stos", "rep movs"


@dataclass(frozen=True)
class Stop:
    """The debugger stopped before an instruction. `value`: what `calc` said there, or 0."""

    ticks: int
    address: int
    instruction: str
    value: int


@dataclass(frozen=True)
class Spent:
    """Instructions between entries and exits. `idle`: ticks that passed while the monitor halted."""

    exits: int
    guest: int
    monitor: int
    idle: int


def symbol(program: Any, name: str) -> int:
    """The address of a symbol. Raises EmulatorError."""
    found = program.symbols.get(name)
    if found is None:
        raise EmulatorError(f"bench boot: expected a symbol {name}, found none in the program")
    return int(found[0])


def entries(monitor: Any) -> tuple[int, int]:
    """The addresses of VMRESUME and VMLAUNCH."""
    from vmm.vmx.entry import RESTART_SIZE

    offset = RESTART_SIZE - 1
    return symbol(monitor, "vmm.vmx.entry.resume_guest") + offset, symbol(
        monitor, "vmm.vmx.entry.launch_guest"
    ) + offset


def halts(monitor: Any) -> dict[int, int]:
    """Where the monitor waits for an interrupt, STI; HLT: the address of STI, and of what follows HLT (Bochs does not stop between)."""
    listed = [(int(address, 16), text) for address, text in INSTRUCTION.findall(monitor.listing())]
    triples = zip(listed, listed[1:], listed[2:], strict=False)
    found = {begin: after for (begin, first), (_, second), (after, _) in triples if (first, second) == ("sti", "hlt")}
    if not found:
        raise EmulatorError("bench boot: expected STI and HLT in the monitor, found none")
    return found


def debug(path: Path, memory: int, script: str, finished: Callable[[console.Transcript], bool] | None = None) -> str:
    """Run Bochs with a debugger script, to the script's `q` or until `finished`; what the debugger said. Raises EmulatorError."""
    transcript = console.Transcript()
    with Bochs(Machine(path, memory=memory, script=script.encode()), transcript.feed) as bochs:
        assert bochs.process is not None
        if finished is not None:
            bochs.wait_for(lambda: finished(transcript), "the end of the boot", SECONDS)
        else:
            try:
                bochs.wait_for(lambda: False, "the end of the debugger's script", SECONDS)
            except EmulatorError:
                if bochs.process.poll() != 0:
                    raise
        return (bochs.folder / "stdout").read_text(errors="replace")


def stops(text: str) -> Iterator[Stop]:
    """All stops in what the debugger said, the one at reset left out."""
    for found in STOP.finditer(text):
        if int(found[1]) != 0:
            yield Stop(int(found[1]), int(found[2], 16), found[3].strip(), int(found[4] or "0", 16))


def places(programs: dict[str, Any]) -> Callable[[int], str]:
    """The function at an address of loader or monitor."""
    functions = sorted(
        (address, name)
        for label in ("loader", "monitor")
        for name, (address, _, kind) in programs[label].symbols.items()
        if kind == "function"
    )
    addresses = [address for address, _ in functions]
    return lambda address: functions[bisect.bisect(addresses, address) - 1][1]


def category(place: str, instruction: str) -> str:
    """What an instruction is spent on."""
    if instruction.startswith(ZEROING):
        return "zeroing"
    if instruction.startswith(COPYING):
        return "copying"
    for name, prefixes in (("hashing", HASHING), ("signatures", SIGNING), ("waiting", WAITING)):
        if place.startswith(prefixes):
            return name
    return "other"


def entry_rows() -> list[Row]:
    """From the loader's first instruction to the first guest's, in an image of one small box."""
    built, path = build_image(SMALL_BOX, SMALL_MEMORY)
    start = symbol(built.programs["loader"], "boot.main.start")
    _, launch = entries(built.programs["monitor"])
    begin = f"lb {start:#x}\nc\n"
    first, last = (stop.ticks for stop in stops(debug(path, SMALL_MEMORY, f"{begin}lb {launch:#x}\nc\nq\n")))
    total = last - first
    text = debug(path, SMALL_MEMORY, begin + f"s {SAMPLE_STEP}\n" * (total // SAMPLE_STEP) + "q\n")
    place = places(built.programs)
    spent: Counter[str] = Counter()
    before = first
    for stop in list(stops(text))[1:]:
        spent[category(place(stop.address), stop.instruction)] += stop.ticks - before
        before = stop.ticks
    return entry_table(total, spent)


def entry_table(total: int, spent: Counter[str]) -> list[Row]:
    """The rows of what was counted."""
    how = f"Bochs ticks, image of the box {SMALL_BOX} alone; one sample every {SAMPLE_STEP} instructions says what for"
    anchored = f"without zeroing, hashing, signatures: {how}; the anchor is the number to reach (SeaBIOS alone: 7.7 M)"
    rest = total - spent["zeroing"] - spent["hashing"] - spent["signatures"]
    exact = "Bochs ticks between two breakpoints; the disk is read before"
    unit = "instructions"
    return [
        Row("loader entry to first guest instruction, as designed", rest, ENTRY_TARGET, unit, anchored),
        Row("of that, waiting for serial line and PIT", spent["waiting"], None, unit, how),
        Row("of that, copying", spent["copying"], None, unit, how),
        Row("besides, hashing (SHA-256)", spent["hashing"], None, unit, how),
        Row("besides, signatures and keys", spent["signatures"], None, unit, how),
        Row("besides, zeroing", spent["zeroing"], None, unit, how),
        Row("loader entry to first guest instruction, all", total, None, unit, exact),
    ]


def linux_rows() -> list[Row]:
    """A Linux boot from its first instruction to the shell's prompt, as the only box."""
    built, path = build_image(LINUX_BOX, LINUX_MEMORY)
    monitor = built.programs["monitor"]
    box = built.boxes[0]
    halting = halts(monitor)
    exit_address = symbol(monitor, "vmm.vmx.entry.guest_exit")
    watched = [*entries(monitor), exit_address, *halting, *halting.values()]
    script = "".join(f"lb {address:#x}\n" for address in watched) + "c\ncalc rdx*256+al\n" * EXIT_LIMIT + "q\n"
    text = debug(path, LINUX_MEMORY, script, lambda transcript: box.ready in transcript.said(box.name))
    spent = account(stops(text), exit_address, halting, box.ready)
    how = f"Bochs ticks at each VM entry and exit, box {LINUX_BOX} alone, from its first instruction to {box.ready!r}"
    share = round(100 * spent.monitor / (spent.monitor + spent.guest), 3)
    shared = how + "; idle time left out; the anchor is the number to reach (Xen 3, NOVA below 1)"
    native = "; anchor: the same kernel, native on the same Bochs, from startup_64 to init, with ACPI and PCI (quoted)"
    return [
        Row("linux boot: exits", spent.exits, None, "exits", how),
        Row("linux boot: monitor instructions", spent.monitor, None, "instructions", how),
        Row("linux boot: monitor's share of all instructions", share, SHARE_TARGET, "%", shared),
        Row("linux boot: guest instructions", spent.guest, NATIVE_TICKS, "instructions", how + native),
        Row("linux boot: idle ticks", spent.idle, None, "ticks", how + ", while the monitor waits for an interrupt"),
    ]


def account(found: Iterator[Stop], exit_address: int, halting: dict[int, int], prompt: str) -> Spent:
    """Add up until the prompt has been written to the UART. Raises EmulatorError if it never is."""
    exits = guest = monitor = idle = 0
    before: Stop | None = None
    written = ""
    for stop in found:
        if before is not None:
            ticks = stop.ticks - before.ticks
            if before.address in halting:
                idle += ticks
            elif stop.address == exit_address:
                guest += ticks
                exits += 1
            else:
                monitor += ticks
        before = stop
        if stop.address == exit_address and stop.value >> 8 == DATA_PORT:
            written = (written + chr(stop.value & 0xFF))[-len(prompt) :]
            if written == prompt:
                return Spent(exits, guest, monitor, idle)
    raise EmulatorError(f"bench boot: expected {prompt!r} among the bytes written to the serial port, found none")


def rows() -> list[Row]:
    """All rows."""
    return entry_rows() + linux_rows()

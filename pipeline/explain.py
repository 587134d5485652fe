"""`explain`: from an address, or a function's name, to the function, its source line and the instructions around it.

It reads what the last build left in out/: the listing and the map of loader and monitor.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import paths
from pipeline.errors import OK, UsageError

PROGRAMS = ("loader", "monitor")
AROUND = 6  # instructions before and after
SOURCE_AROUND = 2  # source lines before and after
INSTRUCTION = re.compile(r"  ([0-9a-f]+)  ([0-9a-f]+) +(.*?)(?: *; (\S+:\d+))?")
STOPPED = re.compile(r"\b(?:rip|exception \d+ at) (0x[0-9a-f]+)")
CHECK = re.compile(r"\bfailed check at (\S+:\d+)")


@dataclass(frozen=True)
class Instruction:
    """One row of a listing; `place` is file:line, empty where no source is known."""

    address: int
    code: str
    text: str
    function: str
    place: str

    @property
    def end(self) -> int:
        """The address behind it."""
        return self.address + len(self.code) // 2


@dataclass(frozen=True)
class Explanation:
    """What an address is. `instructions` are those around it, empty for data."""

    program: str
    address: int
    symbol: str
    offset: int
    place: str
    instructions: tuple[Instruction, ...]


def read_listing(path: Path) -> list[Instruction]:
    """The instructions of a listing file, as dsl/compiler/report.py writes it."""
    rows: list[Instruction] = []
    function = place = ""
    for line in path.read_text().splitlines():
        match = INSTRUCTION.fullmatch(line)
        if match:
            place = match[4] or place
            rows.append(Instruction(int(match[1], 16), match[2], match[3], function, place))
        elif line.endswith(":"):
            function, place = line[:-1], ""
        elif line:
            raise UsageError(f"{path}: expected a function or an instruction, found {line!r}; build again")
    return rows


def read_map(path: Path) -> list[tuple[int, int, str, str]]:
    """(address, size, kind, name) of each symbol of a map file."""
    rows = (line.split() for line in path.read_text().splitlines())
    return [(int(address, 16), int(size), kind, name) for address, size, kind, name in rows]


def built(out: Path) -> list[str]:
    """The programs that out/ has. Raises UsageError where there is none."""
    names = [name for name in PROGRAMS if (out / f"{name}.lst").is_file() and (out / f"{name}.map").is_file()]
    if not names:
        raise UsageError(f"expected {out}/loader.lst and the like, found none; run: python3 build.py build")
    return names


def find(asked: str, out: Path = paths.OUT) -> Explanation:
    """What `asked` is: an address in hexadecimal, or a function's name, which stands for its first instruction."""
    names = built(out)
    try:
        address = int(asked, 16)
    except ValueError:
        address = address_of(asked, names, out)
    spans = []
    for name in names:
        symbols = read_map(out / f"{name}.map")
        low, size, *_ = next(row for row in symbols if row[3] == "linker.image_base")
        if low <= address < low + size:
            return explain(name, address, symbols, read_listing(out / f"{name}.lst"))
        spans.append(f"{name} {low:#x} to {low + size - 1:#x}")
    raise UsageError(f"{asked}: expected an address in {' or '.join(spans)}, found {address:#x}")


def address_of(asked: str, names: list[str], out: Path) -> int:
    """The address of a symbol, which may be given by the last parts of its name."""
    found = {
        name: address
        for program in names
        for address, _, _, name in read_map(out / f"{program}.map")
        if name == asked or name.endswith(f".{asked}")
    }
    if asked in found:
        return found[asked]
    known = {row[3].rpartition(".")[2] for program in names for row in read_map(out / f"{program}.map")}
    near = "".join(f"; did you mean {name}?" for name in difflib.get_close_matches(asked, sorted(known), n=1))
    if len(found) == 1:
        return next(iter(found.values()))
    several = f"several: {', '.join(sorted(found))}" if found else f"none (inlined functions have none){near}"
    raise UsageError(f"{asked}: expected an address in hexadecimal, or the name of one symbol, found {several}")


def explain(
    program: str, address: int, symbols: list[tuple[int, int, str, str]], listing: list[Instruction]
) -> Explanation:
    """Explain an address inside a program."""
    holders = [row for row in symbols if row[0] <= address < row[0] + row[1] and row[2] != "linker"]
    holders = holders or [row for row in symbols if row[0] <= address < row[0] + row[1]]
    low, _, kind, name = max(holders)
    index = next((i for i, row in enumerate(listing) if row.address <= address < row.end), None)
    if kind != "function" or index is None:
        return Explanation(program, address, name, address - low, "", ())
    around = [row for row in listing[max(0, index - AROUND) : index + AROUND + 1] if row.function == name]
    return Explanation(program, address, name, address - low, listing[index].place, tuple(around))


def source_lines(place: str, root: Path = paths.ROOT) -> list[tuple[int, str]]:
    """The lines around file:line, with their numbers; none where there is no such file."""
    file, _, number = place.rpartition(":")
    path = root / file
    if not file or not path.is_file():
        return []
    lines = path.read_text().splitlines()
    middle = int(number)
    first, last = max(1, middle - SOURCE_AROUND), min(len(lines), middle + SOURCE_AROUND)
    return [(n, lines[n - 1]) for n in range(first, last + 1)]


def render(found: Explanation) -> str:
    """The explanation for a person."""
    lines = [f"{found.address:#x} in the {found.program}: {found.symbol} + {found.offset:#x}"]
    if not found.instructions:
        return "\n".join([*lines, "no instruction lies there"]) + "\n"
    lines += [found.place or "no source line", ""]
    number = found.place.rpartition(":")[2]
    lines += [f"{'>' if str(n) == number else ' '} {n:5}  {text}" for n, text in source_lines(found.place)]
    lines.append("")
    before = ""
    for row in found.instructions:
        mark = ">" if row.address <= found.address < row.end else " "
        shown = "" if row.place == before else f"  ; {row.place}"
        lines.append(f"{mark} {row.address:x}  {row.code:<22} {row.text:<44}{shown}".rstrip())
        before = row.place
    return "\n".join(lines) + "\n"


def where(text: str, out: Path = paths.OUT) -> str:
    """One line that names the function in which loader or monitor stopped, going by what it printed; empty where that does not say."""
    try:
        match = STOPPED.search(text)
        if match is not None:
            found = find(match[1], out)
            return f"{match[1]} is {found.symbol} + {found.offset:#x}" + (f", {found.place}" if found.place else "")
        match = CHECK.search(text)
        if match is not None:
            rows = [row for name in built(out) for row in read_listing(out / f"{name}.lst")]
            functions = dict.fromkeys(row.function for row in rows if row.text == "ud2" and row.place == match[1])
            return f"{match[1]} is checked in {' and in '.join(functions)}" if functions else ""
    except UsageError:
        pass
    return ""


def report(asked: str, as_json: bool) -> int:
    """Print the explanation."""
    found = find(asked)
    if not as_json:
        print(render(found), end="")
        return OK
    values: dict[str, Any] = {
        "program": found.program,
        "address": f"{found.address:#x}",
        "symbol": found.symbol,
        "offset": found.offset,
        "place": found.place,
        "instructions": [
            {"address": f"{row.address:#x}", "code": row.code, "text": row.text, "place": row.place}
            for row in found.instructions
        ],
    }
    print(json.dumps(values, indent=1))
    return OK

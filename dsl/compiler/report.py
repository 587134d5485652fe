"""What people read about a program: its listing and its map."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from dsl.compiler.link import Linked


@contextmanager
def without_collector() -> Iterator[None]:
    """Run without the cyclic garbage collector, which costs a compilation 40 percent of its time and frees nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def list_program(linked: Linked) -> str:
    """Address, bytes, text, and the source place wherever it changes."""
    starts = {symbol.address: name for name, symbol in linked.symbols.items() if symbol.kind == "function"}
    ends = [address for address, _ in linked.lines[1:]] + [linked.base + linked.text_end]
    places = dict(linked.places())
    lines: list[str] = []
    place = ""
    for (address, line), end in zip(linked.lines, ends, strict=True):
        if address in starts:
            lines += ["", f"{starts[address]}:"]
            place = ""
            size = linked.symbols[starts[address]].size
            stop = address + size
        here = "{}:{}".format(*places[address]) if address in places else ""
        code = linked.image[address - linked.base : min(end, stop) - linked.base].hex()
        lines.append(
            f"  {address:x}  {code:<22} {line.text:<44}{'  ; ' + here if here and here != place else ''}".rstrip()
        )
        place = here or place
    return "\n".join(lines).lstrip() + "\n"


def map_program(linked: Linked) -> str:
    """Every symbol: address, size, kind, name; by address."""
    rows = sorted((symbol.address, symbol.size, symbol.kind, name) for name, symbol in linked.symbols.items())
    return "".join(f"{address:016x} {size:8} {kind:9} {name}\n" for address, size, kind, name in rows)

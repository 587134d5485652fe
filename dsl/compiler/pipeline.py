"""The compiler on one screen: a machine function becomes a program.

    front end (source -> typed tree -> IR), inline, the passes of PASSES, select, allocate, finish, lay out, encode, link

Every pass is a function of one ir.Function; `disable` leaves passes out by name, `dump` prints what a pass
made. The result depends on the inputs alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from dsl.compiler import ir
from dsl.compiler.allocate import allocate
from dsl.compiler.cache import Entries, remembering
from dsl.compiler.carry import place_carries
from dsl.compiler.checks import remove_checks
from dsl.compiler.choose import choose
from dsl.compiler.code import Code, assemble_function, assemble_items
from dsl.compiler.dead import remove_unseen
from dsl.compiler.diagnostics import MissingPackage
from dsl.compiler.elf import write_elf
from dsl.compiler.finish import finish
from dsl.compiler.fold import fold
from dsl.compiler.hoist import hoist
from dsl.compiler.inline import inline
from dsl.compiler.kernels import build_kernel
from dsl.compiler.layout import lay_out
from dsl.compiler.limit import limit_loops
from dsl.compiler.link import Linked, LinkError, link
from dsl.compiler.machine import POOL
from dsl.compiler.number import number
from dsl.compiler.pe import write_pe
from dsl.compiler.report import as_html, as_text, list_program, map_program, without_collector
from dsl.compiler.secrets import refuse_leaks, refuse_machine_leaks
from dsl.compiler.select import select
from dsl.compiler.spelling import render
from dsl.compiler.thread import thread
from dsl.compiler.unroll import unroll

PASSES: Final[dict[str, Callable[[ir.Function], None]]] = {
    # name: pass over one function, in order; after inlining
    "fold": fold,
    "unroll": unroll,
    "number": number,
    "thread": thread,
    "checks": remove_checks,
    "fold again": fold,
    "choose": choose,
    "hoist": hoist,
    "limit": limit_loops,
    "hoist again": hoist,
    "number again": number,
    "carry": place_carries,
    "dead": remove_unseen,
}
OPTIONAL: Final = ("inline", *dict.fromkeys(name.partition(" ")[0] for name in PASSES))  # what `disable` takes
TEST_BASE: Final = 0x1000000


@dataclass(slots=True)
class Program:
    """A compiled program: `image` is a flat program (docs/formats.md); symbols are (address, size, kind)."""

    linked: Linked
    entry: str

    @property
    def image(self) -> bytes:
        return self.linked.image

    @property
    def memory_size(self) -> int:
        return self.linked.memory_size

    @property
    def base(self) -> int:
        return self.linked.base

    @property
    def symbols(self) -> dict[str, tuple[int, int, str]]:
        return {name: (symbol.address, symbol.size, symbol.kind) for name, symbol in self.linked.symbols.items()}

    @property
    def stats(self) -> dict[str, Any]:
        """Sizes in bytes by function, and totals."""
        functions = {name: symbol.size for name, symbol in self.linked.symbols.items() if symbol.kind == "function"}
        totals = {"text": self.linked.text_end, "image": len(self.image), "instructions": len(self.linked.lines)}
        return {"functions": functions, **totals}

    def elf(self) -> bytes:
        """An ELF file with the image, its symbols and a line table that points at the Python source."""
        return write_elf(self.linked, self.linked.symbols[self.entry].address)

    def pe(self) -> bytes:
        """An EFI application; the program's base must be a page above a multiple of 64 KiB. Raises LinkError."""
        return write_pe(self.linked, self.linked.symbols[self.entry].address)

    def listing(self) -> str:
        """Every instruction with its address, bytes, and the source line that it came from."""
        return list_program(self.linked)

    def __str__(self) -> str:
        """Instructions and source lines side by side, for a terminal."""
        return as_text(self.linked)

    def _repr_html_(self) -> str:
        """The same for a notebook, which asks for it by this name."""
        return as_html(self.linked)

    def map(self) -> str:
        """Symbols by address with their sizes, largest functions last."""
        return map_program(self.linked)


def compile_program(entry: Any, *, base: int, supplied: Mapping[str, bytes] | None = None, **options: Any) -> Program:
    """Compile everything reachable from the machine function `entry`; options: compile_module's. Raises CompileError for user errors."""
    from dsl.compiler.frontend import build_module

    with without_collector():
        module = build_module(entry)
        supply(module, supplied or {})
        try:
            return compile_module(module, base=base, **options)
        except ImportError as problem:
            raise MissingPackage(problem) from None


def compile_function(function: Any, **options: Any) -> Program:
    """A program with `function` as its entry at a fixed base, to be called from tests."""
    return compile_program(function, **{"base": TEST_BASE, **options})


def compile_module(
    module: ir.Module,
    *,
    base: int = TEST_BASE,
    pool: int | None = None,
    disable: Iterable[str] = (),
    dump: str = "",
    verify: bool = False,
    cache: Entries | None = None,
) -> Program:
    """Compile IR. The first function is the entry. verify: check the IR after every pass, not the last alone. cache: see cache.py."""
    left_out = frozenset(disable)
    unknown = left_out.difference(OPTIONAL)
    if unknown:
        raise ValueError(f"disable: no passes named {sorted(unknown)}, expected some of {OPTIONAL}")
    if pool is not None and not 4 <= pool <= len(POOL):
        raise ValueError(f"pool: {pool} registers, expected 4 to {len(POOL)}")
    entry = next(iter(module.functions))

    def compile_one(function: ir.Function) -> Code:
        if isinstance(function.assembly, ir.Kernel):
            return build_kernel(function)
        if function.assembly is not None:
            return assemble_function(function)
        optimise(function, left_out, dump, verify)
        return generate(function, pool, dump)

    make: Callable[[ir.Function], Code] = compile_one
    if cache is not None and not dump and not verify:
        make = remembering(compile_one, cache, (pool, sorted(left_out)))
    if "inline" not in left_out:
        inline(module)
    codes = [make(function) for function in module.functions.values()]
    return Program(link(codes, list(module.objects.values()), entry, base), entry)


def supply(module: ir.Module, supplied: Mapping[str, bytes]) -> None:
    """Fill in the content of the module's supplied tables."""
    for symbol, name in module.supplied.items():
        item = module.objects[symbol]
        if name not in supplied:
            raise LinkError(f"supplied: {name!r} is missing, of which {symbol} takes {item.size} bytes")
        if len(supplied[name]) != item.size:
            raise LinkError(f"supplied: {name!r} has {len(supplied[name])} bytes, {symbol} takes {item.size}")
        module.objects[symbol] = replace(item, content=bytes(supplied[name]))


def optimise(
    function: ir.Function, left_out: frozenset[str] = frozenset(), dump: str = "", verify: bool = False
) -> None:
    """Run the passes over one function's IR."""
    if verify:
        ir.verify(function)
    for name, run in PASSES.items():
        if name.partition(" ")[0] in left_out:
            continue
        run(function)
        refuse_leaks(function)  # after each: a later pass could hide that one leaked
        if verify:
            ir.verify(function)
        if dump == name:
            print(ir.render(function))
    ir.verify(function)


def generate(function: ir.Function, pool: int | None = None, dump: str = "") -> Code:
    """Turn one function's IR into bytes."""
    machine = select(function)
    if dump == "select":
        print(render(machine))
    locations = allocate(machine, pool)
    refuse_machine_leaks(machine, locations)
    finish(machine, locations)
    if dump == "allocate":
        print(render(machine))
    return assemble_items(function.symbol, lay_out(machine))

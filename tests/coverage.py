"""Which test executes which instruction of the programs that it loads, and those programs changed in place: for tests/mutation.py."""

from __future__ import annotations

import ctypes
import mmap
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import unicorn as uc

import dsl.compiler.pipeline as compiler
from boot.handoff import MONITOR_BASE
from dsl.compiler.code import Code
from dsl.compiler.link import Linked
from pipeline.mutants import Mutant, Site
from tests.execution import emulated, native
from tests.model import machine as model
from tests.model import sites, start
from tests.model.image import MONITOR_PHYSICAL

INT3: Final = 0xCC
SIGTRAP: Final = 5
RIP_IN_CONTEXT: Final = 168  # of a ucontext_t: REG_RIP


@dataclass(eq=False)
class Loaded:
    """A program that the tests compiled. variants: each function before linking: equal ones are the same code."""

    linked: Linked
    variants: dict[str, bytes]
    addresses: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.addresses = sorted(address for address, _ in self.linked.lines)

    def inside(self, start: int, size: int) -> list[int]:
        """The addresses of the instructions that begin in a range."""
        return self.addresses[bisect_left(self.addresses, start) : bisect_left(self.addresses, start + size)]

    def sites(self) -> Iterator[Site]:
        """Its instructions."""
        linked = self.linked
        lines, places = dict(linked.lines), dict(linked.places())
        for symbol in self.variants:
            start, size = linked.symbols[symbol].address, linked.symbols[symbol].size
            inside = self.inside(start, size)
            for address, end in zip(inside, [*inside[1:], start + size], strict=True):
                file, line = places.get(address, ("", 0))
                code = linked.image[address - linked.base : end - linked.base]
                yield Site(symbol, address - start, code, lines[address].text, file, line)

    def changed(self, mutant: Mutant) -> bytes:
        """Its image, broken."""
        linked, site = self.linked, mutant.site
        start = linked.symbols[site.symbol].address - linked.base + site.offset
        end = start + len(site.code)
        return linked.image[:start] + mutant.change.applied(linked.image[start:end]) + linked.image[end:]


class Programs:
    """Every program that is compiled, compiled once."""

    def __init__(self) -> None:
        self.loaded: list[Loaded] = []
        self.by_arguments: dict[Any, Any] = {}
        self.codes: list[Code] = []
        self.sites: dict[bytes, dict[int, sites.Site]] = {}  # of the special instructions, by image

    def install(self) -> None:
        """Stand between the tests and the compiler."""
        compile_program, link = compiler.compile_program, compiler.link  # type: ignore[attr-defined]

        def compile_once(entry: Any, **options: Any) -> compiler.Program:
            key = (entry, *(f"{name}={options[name]}" for name in sorted(options)))
            if key not in self.by_arguments:
                program = self.by_arguments[key] = compile_program(entry, **options)
                self.loaded.append(Loaded(program.linked, {code.symbol: bytes(code.data) for code in self.codes}))
            return self.by_arguments[key]  # type: ignore[no-any-return]

        def link_seen(codes: list[Code], *rest: Any) -> Linked:
            self.codes = [
                Code(code.symbol, bytearray(code.data)) for code in codes
            ]  # before the linker fills in distances
            return link(codes, *rest)

        compiler.compile_program, compiler.link = compile_once, link_seen  # type: ignore[attr-defined,assignment]
        start.sites_of = self.sites_of  # type: ignore[assignment]

    def sites_of(self, image: bytes) -> dict[int, sites.Site]:
        """The special instructions of a monitor, found once."""
        if image not in self.sites:
            self.sites[image] = sites.find_sites(image, MONITOR_BASE)
        return self.sites[image]

    def change(self, loaded: Loaded, mutant: Mutant) -> None:
        """Break a program. To look for its special instructions again takes longer than a test."""
        before, loaded.linked.image = loaded.linked.image, loaded.changed(mutant)
        special = {*sites.SPECIAL, *sites.VMX}
        if before in self.sites and special.isdisjoint((mutant.site.text.split()[0], mutant.change.text.split()[0])):
            self.sites[loaded.linked.image] = self.sites[before]

    def of(self, linked: Linked) -> int:
        """The number of a program."""
        return next(number for number, loaded in enumerate(self.loaded) if loaded.linked is linked)

    def monitor_in(self, memory: mmap.mmap) -> int | None:
        """The number of the monitor that lies in a model's memory."""
        for number, loaded in enumerate(self.loaded):
            image = loaded.linked.image
            if loaded.linked.base == MONITOR_BASE and memory[MONITOR_PHYSICAL : MONITOR_PHYSICAL + len(image)] == image:
                return number
        return None


class Coverage:
    """Which instructions run: pairs of a program's number and an address. Unicorn's are blocks until `instructions` looks into them."""

    def __init__(self, programs: Programs) -> None:
        self.programs = programs
        self.is_on = False
        self.blocks: set[tuple[int, int, int]] = set()
        self.traps: list[tuple[int, native.Native, bytes]] = []

    def install(self) -> None:
        """Watch the three places where emitted code runs."""
        emulate, place, build = emulated.Emulated.__init__, native.Native.__init__, model.Machine.__init__

        def emulate_watched(world: emulated.Emulated, program: compiler.Program, record: bool = False) -> None:
            emulate(world, program, record)
            self.watch(world.engine, self.programs.of(program.linked), False)

        def place_watched(world: native.Native, program: compiler.Program) -> None:
            place(world, program)
            if self.is_on:
                self.set_traps(world)

        def build_watched(world: model.Machine, memory: mmap.mmap, *rest: Any) -> None:
            build(world, memory, *rest)
            number = self.programs.monitor_in(memory)
            if number is not None:
                self.watch(world.engine, number, True)

        emulated.Emulated.__init__ = emulate_watched  # type: ignore[method-assign,assignment]
        native.Native.__init__ = place_watched  # type: ignore[method-assign,assignment]
        model.Machine.__init__ = build_watched  # type: ignore[assignment,method-assign]
        self.handler = TrapHandler()

    def watch(self, engine: Any, number: int, is_long: bool) -> None:
        """Note the blocks that an engine runs. is_long: as they are translated, which is much quicker, but leaves out the very first."""
        if not self.is_on:
            return
        blocks = self.blocks
        if is_long:
            engine.hook_add(
                uc.UC_HOOK_EDGE_GENERATED,
                lambda _engine, block, _before, _data: blocks.add((number, block.pc, block.size)),
            )
        else:
            engine.hook_add(uc.UC_HOOK_BLOCK, lambda _engine, at, size, _data: blocks.add((number, at, size)))

    def set_traps(self, world: native.Native) -> None:
        """Put INT3 on every instruction in a program on this processor; it goes away when it is met."""
        linked = world.program.linked
        before = world.memory[: linked.text_end]
        for address, _ in linked.lines:
            world.memory[address - linked.base] = INT3
        self.handler.add(world.address, before)
        self.traps.append((self.programs.of(linked), world, before))

    def instructions(self) -> set[tuple[int, int]]:
        """What ran since the last call."""
        found: set[tuple[int, int]] = set()
        for number, at, size in self.blocks:
            found.update((number, address) for address in self.programs.loaded[number].inside(at, size))
        for number, world, before in self.traps:
            base = world.program.linked.base
            for address in self.programs.loaded[number].addresses:
                here = world.memory[address - base]
                if here == before[address - base] and here != INT3:
                    found.add((number, address))
        self.blocks.clear()
        self.traps.clear()
        self.handler.texts.clear()
        return found


class TrapHandler:
    """Takes SIGTRAP: puts the byte back that an INT3 stands for, and goes on there."""

    def __init__(self) -> None:
        self.texts: dict[int, bytes] = {}
        prototype = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        self.callback = prototype(self.put_back)
        address = ctypes.cast(self.callback, ctypes.c_void_p).value
        self.action = native._SigAction(address, flags=native.SIGINFO_NODEFER)
        assert ctypes.CDLL(None).sigaction(SIGTRAP, ctypes.byref(self.action), None) == 0

    def add(self, address: int, text: bytes) -> None:
        """A program whose instructions were replaced."""
        self.texts[address] = text

    def put_back(self, _number: int, _information: int, context: int) -> None:
        """Handle one trap."""
        rip = ctypes.c_uint64.from_address(context + RIP_IN_CONTEXT)
        rip.value -= 1
        for base, text in self.texts.items():
            if base <= rip.value < base + len(text):
                ctypes.c_uint8.from_address(rip.value).value = text[rip.value - base]

"""`boot`: a program of one's own on the bare emulated machine, in the place where the loader would be.

The boot sector and stage 2 are Terrane's: the program begins in long mode, interrupts off, the first 4 GiB of memory identity-mapped, and
without a stack. Nothing is signed and nothing is measured: this is for learning and for trying things out.
"""

from __future__ import annotations

import importlib
import re
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline import assemble, bochs, disk, paths
from pipeline.emulator import EmulatorError
from pipeline.errors import OK, PipelineError, UsageError
from pipeline.progress import say, step

ENTRY = "start"
TURNED_OFF = "Shutdown port"  # what Bochs says in its log when a program turned it off
EMPTY_PARTITION = bytes(disk.SECTOR)


def load_module(name: str) -> ModuleType:
    """The module of a file or of a dotted name. Raises UsageError where there is none, CompileError for its mistakes."""
    from pipeline.program_file import diagnosed, load_file

    path = Path(name)
    if path.suffix != ".py":
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise UsageError(f"{name}: expected a Python file or a module, found none: {error}") from None
    if not path.is_file():
        raise UsageError(f"{name}: expected a Python file, found none")
    if path.resolve().is_relative_to(paths.ROOT):  # its place in the tree is then the name that a debugger knows it by
        dotted = ".".join(path.resolve().relative_to(paths.ROOT).with_suffix("").parts)
        with diagnosed(path.resolve(), dotted):
            return importlib.import_module(dotted)
    return load_file(path.resolve(), path.stem)


def compile_entry(asked: str) -> Any:
    """Compile FILE or FILE:FUNCTION to run where the loader would. Raises PipelineError with the compiler's own message."""
    from boot.stages import BODY_BASE
    from dsl.compiler.diagnostics import CompileError
    from dsl.compiler.link import LinkError
    from dsl.compiler.pipeline import compile_program

    file, _, name = asked.partition(":")
    try:
        function = getattr(load_module(file), name or ENTRY, None)
        if getattr(function, "__machine__", None) is None:
            raise UsageError(f"{file}: expected a machine function {name or ENTRY!r}, found none")
        return compile_program(function, base=BODY_BASE)
    except (CompileError, LinkError) as error:
        raise PipelineError(f"compiling {asked}:\n{error}") from None


def program_disk(flat: bytes) -> bytes:
    """A disk that boots a flat program."""
    try:
        stage1, stage2 = assemble.loader_stages(flat, len(EMPTY_PARTITION))
    except PipelineError as error:
        raise UsageError(f"the program does not fit where the loader would be: {error}") from None
    return disk.build_disk(stage1, stage2, EMPTY_PARTITION)


def stopped_at(program: Any, log: Path) -> str:
    """The failed check at which a program without exception handlers ended, from the registers in Bochs' log; else nothing."""
    registers = log.read_text(errors="replace") if log.exists() else ""
    places = re.findall(r"\bRIP=([0-9a-f]+)", registers)
    checks = {program.linked.base + offset: trap for offset, trap in program.linked.checks}
    trap = checks.get(int(places[-1], 16)) if places else None
    return f"a check failed at {trap.file}:{trap.line}\n" if trap else ""


def boot(asked: str, memory: int, cpu: str, seconds: float) -> int:
    """Compile, boot in Bochs, show what the program sends to the serial port, until it turns the machine off."""
    bochs.check_installed()
    bochs.check_cpu(cpu)
    with step(f"Compiling {asked}"):
        program = compile_entry(asked)
    paths.OUT.mkdir(parents=True, exist_ok=True)
    image = paths.OUT / "program.img"
    image.write_bytes(program_disk(program.image))
    (paths.OUT / "program.elf").write_bytes(program.elf())
    (paths.OUT / "program.lst").write_text(program.listing())
    say(
        f"Booting {image.relative_to(paths.ROOT)}: {len(program.image):,} bytes, {program.stats['instructions']:,} instructions"
    )
    end = time.monotonic() + seconds

    def show(data: bytes) -> None:
        sys.stdout.write(data.decode("ascii", "backslashreplace").replace("\r\n", "\n"))
        sys.stdout.flush()

    with bochs.Bochs(bochs.Machine(image, memory=memory, cpu=cpu), show) as machine:
        while time.monotonic() < end:
            try:
                machine.read(1.0)
            except EmulatorError as error:
                if TURNED_OFF not in str(error):
                    raise PipelineError(f"{stopped_at(program, machine.folder / 'bochs.log')}{error}") from None
                say("The program turned the machine off")
                return OK
    raise PipelineError(
        f"expected the program to turn the machine off within {seconds:.0f} s (dsl/std/power.py); it still runs"
    )

"""The compiler's code beside C compilers': the kernels of pipeline/kernels, natively, in one run, results compared.

Each compiler's kernels become one shared library; pipeline/kernels/harness.c calls all libraries in turn, so that a busy machine
slows everyone alike. Ours come twice: as they are, and without their checks (of bounds and counts).
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import paths
from pipeline.errors import OK, PipelineError
from pipeline.progress import say

if TYPE_CHECKING:
    from dsl.compiler.pipeline import Program

FOLDER = Path(__file__).resolve().parent / "kernels"
BUILD = paths.CACHE / "bench" / "language"
ROUNDS = 60
PLAIN = ("-ffreestanding", "-fno-builtin", "-fPIC")
FAIR = "gcc -O2, same instructions"
COMPILERS: dict[str, tuple[str, ...]] = {
    # the first one is the reference for results
    "gcc -O2": ("gcc", "-O2", *PLAIN),
    "gcc -O1": ("gcc", "-O1", *PLAIN),
    FAIR: ("gcc", "-O2", *PLAIN, "-mgeneral-regs-only", "-mbmi2", "-madx"),
    "clang -O2": ("clang", "-O2", *PLAIN),
    "tcc": ("tcc", "-fPIC"),
}
OURS, UNCHECKED = "ours", "ours, unchecked"
KERNELS: dict[str, tuple[str, ...]] = {
    # module beside this one: its kernels
    "yardstick": ("sha256_compress", "crc32_tab", "mcopy", "mcmp", "bcopyb", "fe_mul", "ept_walk"),
    "reasons": ("dispatch",),
    "shapes": (
        *("heap_sort", "insertion_sort", "list_turn", "tree_find", "bits_mix", "parse_sums", "big_multiply", "big_add"),
        *("search_count", "utf8_count", "matrix_multiply", "sieve", "table_insert"),
    ),
    "buffers": (
        *("lz_expand", "base64_encode", "edit_distance", "life_turn", "sip_rounds", "queens", "ring_buffer"),
        *("decimal_text", "byte_machine", "collatz", "box_blur", "filter_words"),
    ),
    "searches": ("row_search", "token_states", "knapsack"),
    "states": ("stream_cipher", "word_generator", "letter_tree"),
}


class BenchError(PipelineError):
    """A compiler failed, or a kernel gave a wrong result."""


@dataclass(frozen=True)
class Measured:
    """Best ticks by kernel and compiler; bytes of hot text by compiler; compilers that this machine lacks."""

    ticks: dict[str, dict[str, int]]
    text: dict[str, int]
    missing: list[str]


def execute(command: list[str], what: str) -> str:
    """Run a command; its standard output. Raises BenchError with what it said."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"{what}: {' '.join(command[:3])} ... failed: {done.stderr.strip()[:2000]}")
    return done.stdout


def compile_ours(checked: bool) -> dict[str, Program]:
    """Each kernel of ours as a program of its own, by symbol."""
    import importlib

    from dsl.compiler.frontend import build_module
    from dsl.compiler.pipeline import compile_module

    programs = {}
    for module, names in KERNELS.items():
        functions: Any = importlib.import_module(f"pipeline.kernels.{module}")
        for name in names:
            program = build_module(getattr(functions, name))
            if not checked:
                for function in program.functions.values():
                    for block in function.blocks:
                        block.values = [value for value in block.values if value.operation != "check"]
            programs[name] = compile_module(program)
    return programs


def library_of_ours(name: str, programs: dict[str, Program]) -> Path:
    """A shared library of our images, each with a symbol at its entry."""
    source = []
    for symbol, program in programs.items():
        image = BUILD / f"{name}.{symbol}.bin"
        image.write_bytes(program.image)
        entry = program.symbols[program.entry][0] - program.base
        source += [
            f'.section .ours.{symbol}, "awx", @progbits',
            ".balign 4096",
            f"{symbol}_image:",
            f'.incbin "{image}"',
            f".fill {program.memory_size - len(program.image)}, 1, 0",
            f".globl {symbol}",
            f".type {symbol}, @function",
            f".set {symbol}, {symbol}_image + {entry}",
        ]
    listing = BUILD / f"{name}.s"
    listing.write_text("\n".join([*source, '.section .note.GNU-stack, "", @progbits', ""]))
    library = BUILD / f"{name}.so"
    execute(["gcc", "-shared", "-nostdlib", "-Wl,--no-warn-rwx-segments", "-o", str(library), str(listing)], name)
    return library


def library_in_c(name: str, command: tuple[str, ...]) -> tuple[Path, int]:
    """A shared library of the C kernels, and the bytes of their functions."""
    folder = BUILD / name.replace(" ", "_").replace(",", "")
    folder.mkdir(parents=True, exist_ok=True)
    objects = []
    for source in sorted(FOLDER.glob("*.c")):
        if source.name != "harness.c":
            objects.append(str(folder / f"{source.stem}.o"))
            execute([*command, "-c", str(source), "-o", objects[-1]], f"{name}: {source.name}")
    library = folder / "kernels.so"
    execute(["gcc", "-shared", "-nostdlib", "-Wl,-Bsymbolic", "-o", str(library), *objects], name)
    ours = {symbol for names in KERNELS.values() for symbol in names}
    rows = [line.split() for line in execute(["nm", "-S", "--defined-only", str(library)], name).splitlines()]
    return library, sum(int(row[1], 16) for row in rows if len(row) == 4 and row[3] in ours)


def measure(rounds: int = ROUNDS) -> Measured:
    """Compile everything, run it, compare results."""
    if shutil.which("gcc") is None:
        raise BenchError("gcc: expected a C compiler for the harness and the anchor, found none (Debian package gcc)")
    BUILD.mkdir(parents=True, exist_ok=True)
    missing = [name for name, command in COMPILERS.items() if shutil.which(command[0]) is None]
    libraries: dict[str, Path] = {}
    text: dict[str, int] = {}
    for name, command in COMPILERS.items():
        if name not in missing:
            libraries[name], text[name] = library_in_c(name, command)
    for name, checked in ((OURS, True), (UNCHECKED, False)):
        say(f"compile {name}")
        programs = compile_ours(checked)
        libraries[name] = library_of_ours(name.replace(", ", "_"), programs)
        text[name] = sum(program.linked.hot for program in programs.values())
    harness = BUILD / "harness"
    execute(["gcc", "-O2", str(FOLDER / "harness.c"), "-o", str(harness), "-ldl"], "harness")
    say(f"run {len(libraries)} libraries, {rounds} rounds each")
    output = execute([str(harness), str(rounds), *map(str, libraries.values())], "kernels")
    names = list(libraries)
    ticks: dict[str, dict[str, int]] = {}
    for line in output.splitlines():
        kernel, library, value = line.split("\t")
        ticks.setdefault(kernel, {})[names[int(library)]] = int(value)
    return Measured(ticks, text, missing)


def geometric_mean(ratios: list[float]) -> float:
    return exp(sum(map(log, ratios)) / len(ratios))


def ratios(measured: Measured, name: str) -> list[float]:
    """One compiler's times over the fair gcc's, kernel by kernel."""
    return [times[name] / times[FAIR] for times in measured.ticks.values()]


def table(measured: Measured) -> str:
    """What people read: ratios to the fair gcc, lower is faster."""
    names = [name for name in (*COMPILERS, OURS, UNCHECKED) if name not in measured.missing]
    width = max(len(kernel) for kernel in measured.ticks) + 2
    heads = [name.replace(FAIR, "gcc fair") for name in names]
    columns = [max(len(head), 9) + 2 for head in heads]
    lines = ["kernel".ljust(width) + "".join(h.rjust(c) for h, c in zip(heads, columns, strict=True))]
    for kernel, times in measured.ticks.items():
        cells = [f"{times[name]:,}" if name == FAIR else f"{times[name] / times[FAIR]:.2f}" for name in names]
        lines.append(kernel.ljust(width) + "".join(v.rjust(c) for v, c in zip(cells, columns, strict=True)))
    means = [f"{geometric_mean(ratios(measured, name)):.3f}" for name in names]
    lines.append("geometric mean".ljust(width) + "".join(v.rjust(c) for v, c in zip(means, columns, strict=True)))
    sizes = [f"{measured.text[name]:,}" for name in names]
    lines.append("hot text, bytes".ljust(width) + "".join(v.rjust(c) for v, c in zip(sizes, columns, strict=True)))
    lines.append("gcc fair: -O2 -mgeneral-regs-only -mbmi2 -madx, in best TSC ticks; the others as ratios to it")
    lines += [f"not here: {name}" for name in measured.missing]
    return "\n".join(lines)


def rows(measured: Measured) -> list[dict[str, object]]:
    """What programs read: for each kernel, and the mean; `ratio` is ours with checks over the fair gcc."""
    how = "best TSC ticks, all compilers in one run; the anchor is gcc -O2 -mgeneral-regs-only -mbmi2 -madx"
    made: list[dict[str, object]] = []
    for kernel, times in measured.ticks.items():
        ratio = round(times[OURS] / times[FAIR], 4)
        made.append(
            {"name": kernel, "ours": times[OURS], "anchor": times[FAIR], "unit": "ticks", "how": how, "ratio": ratio}
            | {"ratio_unchecked": round(times[UNCHECKED] / times[FAIR], 4), "all": times}
        )
    mean, unchecked = (geometric_mean(ratios(measured, name)) for name in (OURS, UNCHECKED))
    made.append(
        {"name": "geometric mean", "ours": round(mean, 4), "anchor": 1, "unit": "ratio", "how": how}
        | {"ratio": round(mean, 4), "ratio_unchecked": round(unchecked, 4)}
    )
    text, anchor = measured.text[OURS], measured.text["gcc -O2"]
    how = "bytes of the kernels' functions, the cold blocks of failed checks apart; the anchor is gcc -O2"
    made.append(
        {"name": "hot text", "ours": text, "anchor": anchor, "unit": "bytes", "how": how}
        | {"ratio": round(text / anchor, 4), "all": measured.text}
    )
    return made


def report(as_json: bool) -> int:
    """Measure and print."""
    measured = measure()
    if as_json:
        print(json.dumps({"rows": rows(measured), "missing": measured.missing}, indent=1))
    else:
        print(table(measured))
    return OK

"""Kernels: functions whose machine code a PeachPy function gives, in place of a body.

`@machine(kernel="package.module.function")` names the Python function that builds it. It is called when code is made, and not where the
code is in the cache: the key holds a digest of the files of its folder, which import nothing else of the tree. Capstone must decode what
PeachPy was asked for.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import warnings
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dsl.compiler import ir
from dsl.compiler.capstone import EncodingError, decode
from dsl.compiler.code import Code, Line
from dsl.compiler.lower import Lowering


def read_kernel(lowering: Lowering, node: ast.FunctionDef, builder: str) -> ir.Kernel:
    """What a kernel is made by; an error where there is no such function, which is looked for without loading PeachPy."""
    module, _, name = builder.rpartition(".")
    try:
        found = find_spec(module)
    except (ImportError, ValueError):
        found = None
    if found is None or found.origin is None or not found.has_location:
        text = f"expected the dotted name of a function in a Python module, found {builder!r}"
        raise lowering.error("kernel", node, text)
    source = ast.parse(Path(found.origin).read_bytes())
    if not any(isinstance(statement, ast.FunctionDef) and statement.name == name for statement in source.body):
        raise lowering.error("kernel", node, f"expected a function {name!r} in {module}, found none")
    if lowering.signature.result.widths:
        raise lowering.error("kernel", node, "a kernel writes to what its arguments refer to; it gives no result")
    state = hashlib.sha256()
    for path in sorted(Path(found.origin).parent.glob("*.py")):
        state.update(path.read_bytes())
    return ir.Kernel(builder, state.hexdigest())


def build_kernel(function: ir.Function) -> Code:
    """The code of a kernel, with what PeachPy was asked for, which the linker compares. Raises EncodingError."""
    assert isinstance(function.assembly, ir.Kernel)
    data, asked = assemble_kernel(function.assembly)
    return Code(function.symbol, bytearray(data), lines=[Line(at, text, function.span) for at, text in asked])


@cache
def assemble_kernel(kernel: ir.Kernel) -> tuple[bytes, list[tuple[int, str]]]:
    """What a kernel's builder makes, and the offset and text of each instruction."""
    module, _, name = kernel.builder.rpartition(".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in PeachPy's own source
        built: Any = getattr(importlib.import_module(module), name)()
        from peachpy.x86_64.abi import system_v_x86_64_abi

        encoded = built.finalize(system_v_x86_64_abi).encode()
    if encoded.code_section.relocations or len(encoded.const_section.content):
        raise EncodingError(f"{kernel.builder}: a kernel has no constants of its own; it takes tables as arguments")
    data = bytes(encoded.code_section.content)
    offsets = [at for at, _, _ in decode(data)]
    asked = [spell(instruction) for instruction in encoded._instructions if instruction.name != "LABEL"]
    if len(asked) != len(offsets):
        raise EncodingError(f"{kernel.builder}: {len(asked)} instructions became {len(offsets)}")
    return data, list(zip(offsets, asked, strict=True))


def spell(instruction: Any) -> str:
    """PeachPy's instruction in Intel's syntax; a jump without its target."""
    name = str(instruction.name).lower()
    operands = "" if name.startswith("j") else ", ".join(str(operand).lower() for operand in instruction.operands)
    return f"{name} {operands}".rstrip()

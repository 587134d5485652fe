"""Kernels: their bytes are what PeachPy was asked for and what Keystone makes of it; secrets steer nothing in them."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from dsl.compiler import ir, kernels
from dsl.compiler.capstone import EncodingError, decode
from dsl.compiler.frontend import build_module
from dsl.compiler.keystone import assemble
from dsl.compiler.link import link
from dsl.compiler.machine import NAMES, NUMBERS
from dsl.compiler.pipeline import compile_function
from dsl.lang import machine, u64
from dsl.std import field25519, sha256, sha256_bulk, sha512
from dsl.std.edwards25519 import select_entry
from dsl.std.x25519 import ladder_step

FIELD: Final = (
    field25519.field_add,
    field25519.field_subtract,
    field25519.field_multiply,
    field25519.field_square,
    ladder_step,
)
ON_SECRETS: Final = {  # and the registers that hold public arguments: addresses and lengths
    **dict.fromkeys(FIELD[:4], frozenset(("rdi", "rsi", "rdx"))),
    ladder_step: frozenset(("rdi",)),
    select_entry: frozenset(("rdi", "rsi", "rdx")),
    sha256.compress: frozenset(("rdi", "rdx", "rcx", "r9")),
    sha512.compress: frozenset(("rdi", "rdx", "rcx", "r9")),
}
EXTENSIONS: Final = (sha256_bulk.compress_extension, sha256_bulk.compress_two_extension)
CONSTANT_TIME: Final = {  # what kernels on secrets consist of: none of it takes a time that depends on its operands
    *(
        "mov",
        "lea",
        "add",
        "adc",
        "sub",
        "sbb",
        "mulx",
        "imul",
        "and",
        "xor",
        "shr",
        "ror",
        "rorx",
        "bswap",
        "btr",
        "test",
        "cmp",
    ),
    *("dec", "cmove", "cmovne", "push", "pop", "ret", "jne"),
}
MEMORY: Final = re.compile(r"\[([^\]]*)\]")
SPAN: Final = ir.Span("x.py", 1, 0, 1, 1)


def name_of(function: Callable[..., Any]) -> str:
    """What a test is called by."""
    return f"{function.__module__}.{function.__name__}"


def listing(function: Callable[..., Any]) -> list[str]:
    """The decoded instructions of a kernel."""
    return [text for _, _, text in decode(code_of(function))]


def code_of(function: Callable[..., Any]) -> bytes:
    """The bytes of a kernel, as they are in a program."""
    program = compile_function(function)
    address, size, _ = program.symbols[program.entry]
    return program.image[address - program.base : address - program.base + size]


@pytest.mark.t1
@pytest.mark.parametrize("function", [*ON_SECRETS, *EXTENSIONS], ids=name_of)
def test_keystone_agrees(function: Callable[..., Any]) -> None:
    """Each instruction, assembled from its text by Keystone, decodes to the same text."""
    for at, size, text in decode(code_of(function)):
        again = assemble(text, at)
        assert decode(again, at)[0][2] == text
        assert len(again) <= size or text.startswith("j")


def registers_of(text: str) -> list[str]:
    """The registers that a text names, as their 64 bits are called."""
    return [NAMES[64][NUMBERS[word][0]] for word in re.findall(r"\b[a-z]\w*", text) if word in NUMBERS]


def leaks(lines: list[str], public: frozenset[str]) -> list[str]:
    """Instructions whose time or address may depend on what is not public, read from top to bottom.

    A register is public that holds an argument which is, or a sum of such a register and a constant, or what was pushed of one. A branch
    follows a comparison of public registers, or of one with memory where the kernel keeps such a sum.
    """
    public, found = public | {"rsp"}, []
    for before, text in pairwise(["", *lines]):
        mnemonic, _, operands = text.partition(" ")
        target, _, source = operands.partition(", ")
        address = MEMORY.search(text)
        bases = registers_of(address[1]) if address else []
        fine = mnemonic in CONSTANT_TIME and (mnemonic == "lea" or set(bases) <= public)
        if mnemonic == "jne":
            fine = before.startswith("cmp ") and set(registers_of(before)) <= public
        if not fine:
            found.append(text)
        if mnemonic in ("test", "cmp", "push", "jne", "ret") or (address and target.endswith("]")):
            continue
        saved = text in ("pop rdi", "mov rdi, qword ptr [rsp]")
        derived = (
            mnemonic in ("mov", "lea") and (not address or mnemonic == "lea") and set(registers_of(source)) <= public
        )
        moved = mnemonic in ("add", "sub") and not registers_of(source)
        written = set(registers_of(operands if mnemonic == "mulx" else target)[:2])
        public = public | written if saved or derived else public if moved else public - written
    return found


@pytest.mark.t1
@pytest.mark.parametrize("function", ON_SECRETS, ids=name_of)
def test_secrets_steer_nothing(function: Callable[..., Any]) -> None:
    """No branch, no address and no slow instruction depends on a secret."""
    assert leaks(listing(function), ON_SECRETS[function]) == []


@pytest.mark.t1
@pytest.mark.parametrize("function", FIELD, ids=name_of)
def test_field_kernels_are_straight_lines(function: Callable[..., Any]) -> None:
    """There is no branch in them at all."""
    assert not any(text.startswith("j") for text in listing(function))


@pytest.mark.t0
@pytest.mark.parametrize(
    ("planted", "leak"),
    [
        ("mov rax, qword ptr [rdi]; mov rcx, qword ptr [rsi + rax*8]", 1),
        ("mov rax, qword ptr [rdi]; cmp rax, rsi; jne 0x10", 2),
        ("mov rax, qword ptr [rdi]; test rax, rax; jne 0x10", 2),
        ("mov rax, qword ptr [rdi]; div rax", 1),
        ("mov rsi, qword ptr [rdi]; add rdi, rsi; mov rax, qword ptr [rdi]", 2),
        ("mulx rsi, rax, qword ptr [rdi]; mov qword ptr [rsi], rax", 1),
        ("mov edi, dword ptr [rsi]; mov eax, dword ptr [rdi]", 1),
        ("lea rax, [rdi + 8]; cmp rsi, rax; jne 0x10; mov rcx, qword ptr [rax]", None),
    ],
)
def test_the_check_finds_leaks(planted: str, leak: int | None) -> None:
    """An address, a branch or a division by what memory held is seen, and a pointer that moves is not."""
    lines = planted.split("; ")
    assert leaks(lines, frozenset(("rdi", "rsi"))) == ([] if leak is None else [lines[leak]])


@pytest.mark.t1
@pytest.mark.parametrize("function", EXTENSIONS, ids=name_of)
def test_hash_kernels_leave_upper_halves_alone(function: Callable[..., Any]) -> None:
    """No VEX: what a program keeps above bit 127 of a vector register survives."""
    lines = listing(function)
    assert any(text.startswith("sha256rnds2") for text in lines)
    assert not any(text.startswith("v") or "ymm" in text for text in lines)


def build(monkeypatch: pytest.MonkeyPatch, builder: Callable[[], Any]) -> Any:
    """A program of the kernel that this function builds."""
    monkeypatch.setattr(importlib, "import_module", lambda _: SimpleNamespace(build=builder))
    kernel = ir.Function("f", (), (), SPAN, assembly=ir.Kernel("anywhere.build", builder.__name__))
    return link([kernels.build_kernel(kernel)], [], "f", 0x1000)


def wrong_immediate() -> Any:
    """What PeachPy is known to get wrong: 200 becomes a negative byte."""
    from peachpy.x86_64 import IMUL, RETURN
    from peachpy.x86_64.registers import rax

    from dsl.std.kernels.target import kernel

    with kernel("wrong") as function:
        IMUL(rax, rax, 200)
        RETURN()
    return function


def own_constant() -> Any:
    """A kernel with a literal, for which a program has no place."""
    from peachpy.literal import Constant
    from peachpy.x86_64 import MOVDQU, RETURN
    from peachpy.x86_64.registers import xmm0

    from dsl.std.kernels.target import kernel

    with kernel("constant") as function:
        MOVDQU(xmm0, Constant.uint32x4(1, 2, 3, 4))
        RETURN()
    return function


@pytest.mark.t1
def test_wrong_encodings_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoding that PeachPy gets wrong does not enter a program; nor does a kernel with constants."""
    with pytest.raises(EncodingError, match="asked for 'imul rax, rax, 200'"):
        build(monkeypatch, wrong_immediate)
    with pytest.raises(EncodingError, match="no constants of its own"):
        build(monkeypatch, own_constant)


@machine(kernel="planted_kernels.one.build")
def planted(number: u64) -> None:
    """A kernel whose builder the test below writes."""


@pytest.mark.t0
def test_a_changed_source_is_another_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache tells kernels apart by every file of the folder, the builder's own and those beside it."""
    folder = tmp_path / "planted_kernels"
    folder.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    found = set()
    for builder, beside in (("def build(): ...", ""), ("def build(): ...", "A = 1"), ("def build(): pass", "A = 1")):
        (folder / "one.py").write_text(builder)
        (folder / "__init__.py").write_text(beside)
        (function,) = build_module(planted).functions.values()
        found.add(function.assembly)
    assert len(found) == 3

"""Kernels: their bytes are what PeachPy was asked for and what Keystone makes of it; secrets steer nothing in them."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

import pytest

from dsl.compiler import ir, kernels
from dsl.compiler.capstone import EncodingError, decode
from dsl.compiler.keystone import assemble
from dsl.compiler.pipeline import compile_function
from dsl.std import field25519, sha256_bulk
from dsl.std.edwards25519 import select_entry
from dsl.std.x25519 import ladder_step

FIELD: Final = (
    field25519.field_add,
    field25519.field_subtract,
    field25519.field_multiply,
    field25519.field_square,
    ladder_step,
)
HASHES: Final = (sha256_bulk.compress_extension, sha256_bulk.compress_two_extension)
CONSTANT_TIME: Final = {  # what these kernels consist of; none of it takes a time that depends on its operands
    *(
        "mov",
        "lea",
        "add",
        "adc",
        "adcx",
        "adox",
        "sub",
        "sbb",
        "mulx",
        "imul",
        "and",
        "xor",
        "shr",
        "btr",
        "test",
        "cmp",
        "dec",
    ),
    *("cmove", "cmovne", "push", "pop", "ret", "jne"),
}
MEMORY: Final = re.compile(r"\[([^\]]*)\]")
SPAN: Final = ir.Span("x.py", 1, 0, 1, 1)


def listing(function: Callable[..., Any]) -> list[str]:
    """The decoded instructions of a kernel."""
    return [text for _, _, text in decode(code_of(function))]


def code_of(function: Callable[..., Any]) -> bytes:
    """The bytes of a kernel, as they are in a program."""
    program = compile_function(function)
    address, size, _ = program.symbols[program.entry]
    return program.image[address - program.base : address - program.base + size]


@pytest.mark.t1
@pytest.mark.parametrize("function", [*FIELD, select_entry, *HASHES], ids=lambda function: function.__name__)
def test_keystone_agrees(function: Callable[..., Any]) -> None:
    """Each instruction, assembled from its text by Keystone, decodes to the same text."""
    for at, size, text in decode(code_of(function)):
        again = assemble(text, at)
        assert decode(again, at)[0][2] == text
        assert len(again) <= size or text.startswith("j")


@pytest.mark.t1
@pytest.mark.parametrize("function", FIELD, ids=lambda function: function.__name__)
def test_field_kernels_are_straight_lines(function: Callable[..., Any]) -> None:
    """No branch, no slow or odd instruction, and every address is a register that still holds an argument, plus a constant."""
    public = {"rdi", "rsi", "rdx"}
    for text in listing(function):
        mnemonic, _, operands = text.partition(" ")
        assert mnemonic in CONSTANT_TIME - {"jne"}
        assert mnemonic == "lea" or set(bases_of(text)) <= public
        if mnemonic not in ("push", "pop", "test", "cmp", "ret"):
            public -= set(operands.split(", ")[: 2 if mnemonic == "mulx" else 1])
        if text == "mov rbp, rdx":
            public.add("rbp")


def bases_of(text: str) -> list[str]:
    """The registers in an instruction's address."""
    match = MEMORY.search(text)
    return re.findall(r"\br\w+", match[1]) if match else []


@pytest.mark.t1
def test_selection_reads_every_entry() -> None:
    """The one branch counts addresses, not the secret index, which goes nowhere but into a test for zero."""
    lines = listing(select_entry)
    assert {text.split()[0] for text in lines} <= CONSTANT_TIME
    branch = next(index for index, text in enumerate(lines) if text.startswith("j"))
    assert lines[branch - 1] == "cmp rsi, qword ptr [rdi]"
    assert sum(text.startswith("j") for text in lines) == 1
    assert [
        text for text in lines if "rcx" in text.split(",", 1)[-1] and not text.startswith(("push", "pop", "cmov"))
    ] == [
        "mov rdx, rcx",
        "mov qword ptr [rdi + 0x50], rcx",
    ]
    loop = lines[lines.index("mov rdx, rcx") + 1 : branch]
    assert [text for text in loop if "rdx" in text] == ["test rdx, rdx", "dec rdx"]


@pytest.mark.t1
@pytest.mark.parametrize("function", HASHES, ids=lambda function: function.__name__)
def test_hash_kernels_leave_upper_halves_alone(function: Callable[..., Any]) -> None:
    """No VEX: what a program keeps above bit 127 of a vector register survives."""
    lines = listing(function)
    assert any(text.startswith("sha256rnds2") for text in lines)
    assert not any(text.startswith("v") or "ymm" in text for text in lines)


def build(monkeypatch: pytest.MonkeyPatch, builder: Callable[[], Any]) -> Any:
    """The code of a kernel that this function builds."""
    monkeypatch.setattr(importlib, "import_module", lambda _: SimpleNamespace(build=builder))
    return kernels.build_kernel(ir.Function("f", (), (), SPAN, assembly=ir.Kernel("anywhere.build", "")))


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

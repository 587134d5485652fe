"""The IR's rules are enforced: each way to break one is named."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dsl.compiler import ir


def sample() -> ir.Function:
    """If a < b: return a + b, else return 0."""
    span = ir.Span("sample.py", 1, 0, 1, 0)
    function = ir.Function("sample", (64, 64), (64,), span)
    entry, yes, no = blocks = [ir.Block(label) for label in ("entry", "yes", "no")]
    function.blocks = list(blocks)

    def add(block: ir.Block, operation: str, width: int, *arguments: ir.Value, data: object = None) -> ir.Value:
        value = ir.Value(operation, width, list(arguments), data, span, block)
        block.values.append(value)
        return value

    a, b = (add(entry, "parameter", 64, data=number) for number in (0, 1))
    add(entry, "branch", 0, add(entry, "ult", 1, a, b))
    add(yes, "return", 0, add(yes, "add", 64, a, b))
    add(no, "return", 0, add(no, "const", 64, data=0))
    entry.successors = [yes, no]
    yes.predecessors, no.predecessors = [entry], [entry]
    return function


def test_sample_is_legal() -> None:
    """What the tests below break was whole."""
    ir.verify(sample())


def width_of_sum(f: ir.Function) -> None:
    f.blocks[1].values[0].width = 32


def foreign_use(f: ir.Function) -> None:
    f.blocks[2].values[-1].arguments[0] = f.blocks[1].values[0]


def no_terminator(f: ir.Function) -> None:
    f.blocks[2].values.pop()


def lost_edge(f: ir.Function) -> None:
    f.blocks[1].predecessors.clear()


def large_constant(f: ir.Function) -> None:
    f.blocks[2].values[0].data = 1 << 64


def unknown_operation(f: ir.Function) -> None:
    f.blocks[2].values[0].operation = "frobnicate"


def late_phi(f: ir.Function) -> None:
    block = f.blocks[2]
    block.values.insert(1, ir.Value("phi", 64, [block.values[0]], None, None, block))


def wrong_result(f: ir.Function) -> None:
    f.results = (32,)


def wide_condition(f: ir.Function) -> None:
    f.blocks[0].values[-1].arguments[0] = f.blocks[0].values[0]


def arity(f: ir.Function) -> None:
    f.blocks[1].values[0].arguments.pop()


def wrong_block(f: ir.Function) -> None:
    f.blocks[1].values[0].block = f.blocks[2]


def entered_entry(f: ir.Function) -> None:
    f.blocks[0].predecessors.append(f.blocks[1])


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (width_of_sum, "argument widths"),
        (foreign_use, "not dominated"),
        (no_terminator, "no terminator"),
        (lost_edge, "not recorded"),
        (large_constant, "constant"),
        (unknown_operation, "unknown operation"),
        (late_phi, "phi after another operation"),
        (wrong_result, "returns"),
        (wide_condition, "condition of width 1"),
        (arity, "takes 2 arguments"),
        (wrong_block, "another block"),
        (entered_entry, "predecessors"),
    ],
)
def test_broken_rule(spoil: Callable[[ir.Function], None], text: str) -> None:
    """Each broken rule raises IllegalIR, which names the function."""
    function = sample()
    spoil(function)
    with pytest.raises(ir.IllegalIR, match=f"sample.*{text}"):
        ir.verify(function)

"""References to a frame that last longer than what they refer to, where that takes more than one statement to see."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.diagnostics.test_diagnostics import compile_text

HEAD = """from __future__ import annotations

from dsl.lang import Record, Ref, Struct, address_of, frame_array, machine, static, u8, u64, upto


class Box(Struct):
    next: Ref[Box] | None
    size: u64


class Found(Record):
    box: Box
    size: u64


ROOT = static(Box)
OTHER = static(Box)


@machine
def keep(number: u64, box: Box) -> None:
    ROOT.next = box


@machine
def pass_on(box: Box, number: u64) -> u64:
    keep(number, box)
    return number


@machine
def same(box: Box) -> Box:
    return box


@machine
def size_of_box(box: Box, more: u64) -> u64:
    return box.size + more


@machine
def entry(count: u64) -> u64:
    total = u64(0)
    last = Box()
    found = Found(last, total)
"""
LOOP = "    for turn in upto(count):\n"
KEPT = "keeps a reference to this object, which each turn of the loop makes anew"
STORED = "which stores it"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (f"{LOOP}        box = Box()\n        if turn == 1:\n            last = box\n", KEPT),
        (f"{LOOP}        box = Box()\n        last = same(box) if turn > 1 else last\n", KEPT),
        (f"{LOOP}        box = Box()\n        found = Found(box, turn)\n        total += found.box.size\n", ""),
        (f"{LOOP}        total += found.box.size\n        found = Found(Box(), turn)\n", KEPT),
        ("    while total < count:\n        total += last.size + 1\n        last = Box()\n", KEPT),
        (f"{LOOP}        last = Box()\n        total += last.size\n        break\n", ""),
        (
            f"{LOOP}        last = Box()\n        last.size = turn\n        total += last.size\n    last = same(last)\n",
            KEPT,
        ),
        (f"{LOOP}        box = Box()\n        total = size_of_box(box, total)\n", ""),
        (f"    spare = Box()\n{LOOP}        last, spare = spare, last\n        last.size += turn\n", ""),
        (f"    own = Box()\n    last = OTHER\n{LOOP}        last = own\n        last.size = turn\n", ""),
        ("    if count == 1:\n        last = OTHER\n    ROOT.next = last\n", "is stored in Box.next"),
        ("    ROOT.next = Box.at(address_of(last))\n", "is stored in Box.next"),
        ("    keep(count, last)\n", STORED),
        ("    total = pass_on(same(last), count)\n", STORED),
        ("    keep(count, OTHER)\n    total = size_of_box(last, pass_on(OTHER, count))\n", ""),
    ],
)
def test_references_that_outlive_their_object(body: str, said: str, tmp_path: Path) -> None:
    """Refused with the object's or the call's place; what only looks like it is accepted."""
    text = HEAD + body + "    return total + last.size\n"
    found = compile_text("escape", text, tmp_path)
    if not said:
        assert found == ""
        return
    assert found.count("error[") == 1, found
    assert "error[frame-escape]" in found
    assert said in found

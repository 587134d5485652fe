"""mypy --strict accepts good programs and rejects each of these bad lines, so that mistakes show before anything runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PREAMBLE = """
from __future__ import annotations
from enum import Enum
from typing import Final
from dsl.lang import *

class Kind(Enum):
    ONE = u32(1)

class Leaf(Bits, storage=u64):
    read: bool = bit(0)
    memory_type: u8 = bits(5, 3)
    dirty: bool = bit(9, default=False)

class Node(Struct):
    word: u64
    device: Device[u32]
    guest: Untrusted[u64]
    next: Ref[Node] | None
    table: Array[u16] = array(4)

class Pair(Record):
    low: u64
    high: u32

REASON: Final = field32(0x4402)
STATE: Final = static(Node)
CPUS: Final = static_array(u64, 4)
TABLE: Final = table(u8, b"text")

@machine
def one(a: u64) -> u64:
    return a

@machine
def two(b: u64) -> u64:
    return b

@machine
def other(a: u32) -> u64:
    return u64(a)

def program(a: u64, b: u32, s: Secret[u64], g: Untrusted[u64], h: HostPhysical, node: Node, port: Static[u16]) -> None:
"""

GOOD = """
    c = a + 1 & 0xFF
    d = u64(b) * a >> b
    a.truncate(u32) == b
    e: i32 = b.as_signed()
    f = h + 4096 - 8
    distance: u64 = h - f
    node.word += a
    node.device = b
    node.table[b] = u16(1)
    if node.next is not None:
        node.next.word = d
    leaf = Leaf(read=True, memory_type=u8(6)).with_(dirty=True)
    raw = u64(leaf.raw())
    pair = Pair(a, high=b)
    total = checked_add(pair.low, 1)
    if isinstance(total, Failure):
        stop("too much")
    plain: u64 = total + raw
    hidden: Secret[u64] = s + a ^ 1
    wide: SecretWide = multiply_wide(s, a)
    word: u32 = vmread(REASON)
    vmwrite(REASON, word + 1)
    for i in upto(b):
        node.table[i] = u16(0)
    limited: u64 | Failure = g.below(16)
    out8(port, TABLE[0])
    STATE.word = CPUS[1]
    handlers = dispatch({1: one, 2: two}, default=one)
    result: u64 = handlers.call(b, a)
    secrets: Array[Secret[u16]] = as_secret(node.table)
    back: u16 = declassify(secrets[0], "a test")
"""

BAD = [
    "a + b",
    "a == b",
    "a < b",
    "u32(a)",
    "u64(b.as_signed())",
    "u32(b.as_signed())",
    "b.truncate(u64)",
    "a.truncate(i32)",
    "b.truncate(u32)",
    "a << b.as_signed()",
    "-a",
    "b.as_signed() // 2",
    "a / 2",
    "if a: pass",
    "while node.word: pass",
    "if not b: pass",
    "[1, 2][a]",
    "range(a)",
    "x: u32 = a",
    "x: int = a",
    "node.word = 1",
    "node.word = b",
    "node.device = a",
    "node.next.word = a",
    "node.table[s]",
    "node.table[g]",
    "node.table[0] = a",
    "node.table[b.as_signed()]",
    "for element in node.table: pass",
    "node.nothing = a",
    "h + b",
    "h == HostVirtual(1)",
    "h - GuestPhysical(0)",
    "x: u64 = h",
    "Node.at(h)",
    "HostVirtual(h)",
    "HostVirtual(b)",
    "Leaf(read=True)",
    "Leaf(read=a, memory_type=u8(1))",
    "Leaf(True, u8(1))",
    "Leaf(read=True, memory_type=u8(1)).dirty = True",
    "Pair(a, a)",
    "Pair(a)",
    "Pair(a, b).low = a",
    "lo, hi = Pair(a, b)",
    "x: u64 = checked_add(a, 1)",
    "checked_add(a, 1) + 1",
    "checked_add(a, b)",
    "Failure(b)",
    "if s: pass",
    "s == s",
    "s < s",
    "s + b",
    "s // s",
    "x: u64 = s",
    "x: u64 = g",
    "g.below(b)",
    "s + g",
    "x: Wide = multiply_wide(s, a)",
    "constant_time_select(a, s, s)",
    "minimum(a, b)",
    "rotate_left(b.as_signed(), 1)",
    "divide_truncating(a, a)",
    "vmwrite(REASON, a)",
    "x: u64 = vmread(REASON)",
    "field16(0x0802).word(1) + a",
    "in8(b)",
    "out8(port, b)",
    "wrmsr(b, b)",
    "static(u64)",
    "frame_array(u64, 4).equals(frame_array(u32, 4))",
    "frame_array(u64, 4).load_u32(0)",
    "frame_array(u64, 4).copy_from(frame_array(u32, 4))",
    "dispatch({1: one, 2: other}, default=one)",
    "dispatch({1: one}, default=one).call(b, b)",
    "dispatch({1: one}, default=one).call(b)",
    "address_of(a)",
    "Kind.ONE + 1",
    "one(1)",
    "one(b)",
]


def mypy(source: str, tmp_path: Path) -> list[int]:
    """The numbers of the lines that mypy --strict, with this project's extra checks, finds wrong."""
    path = tmp_path / "program.py"
    path.write_text(source)
    command = [sys.executable, "-m", "mypy", "--strict", "--enable-error-code", "truthy-bool", "--no-error-summary"]
    command += [
        "--explicit-package-bases",
        "--no-warn-unused-ignores",
        "--cache-dir",
        str(tmp_path / "cache"),
        str(path),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    marks = [line.split(":") for line in done.stdout.splitlines() if ": error:" in line]
    assert all(mark[0].endswith("program.py") for mark in marks), done.stdout
    return [int(mark[1]) for mark in marks]


@pytest.mark.slow
def test_good_lines_pass_and_bad_ones_do_not(tmp_path: Path) -> None:
    """One run over both: no good line is rejected, no bad one accepted."""
    head = (PREAMBLE + GOOD.strip("\n") + "\n").splitlines()
    source = "\n".join(head + [f"    {line.replace('x:', f'x{number}:')}" for number, line in enumerate(BAD)]) + "\n"
    wrong = mypy(source, tmp_path)
    assert [head[line - 1] for line in wrong if line <= len(head)] == []
    accepted = [line for number, line in enumerate(BAD, len(head) + 1) if number not in wrong]
    assert accepted == []

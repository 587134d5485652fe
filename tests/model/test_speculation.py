"""What a processor does that predicts the check of a guest's address wrongly: it goes on with an address that all boxes have."""

from __future__ import annotations

from itertools import pairwise

import pytest

from dsl.compiler.pipeline import compile_function
from tests.execution.emulated import STACK, Emulated
from vmm.guest_memory import check_range

pytestmark = pytest.mark.t1
MEMORY = STACK + 0x100  # a GuestMemory: frames, their count, the size
SIZE = 6 << 20
FUNCTION = "vmm.guest_memory.check_range"
NOP = b"\x90"


def without_branches() -> Emulated:
    """The range check whose conditional jumps are never taken."""
    program = compile_function(check_range)
    world = Emulated(program)
    start, size, _ = program.symbols[FUNCTION]
    lines = [(address, line.text) for address, line in program.linked.lines if start <= address < start + size]
    taken = [(here, after) for (here, text), (after, _) in pairwise(lines) if text.startswith("jb")]
    assert taken
    for here, after in taken:
        world.engine.mem_write(here, NOP * (after - here))
    return world


def test_an_address_beyond_a_box_becomes_zero_on_the_wrong_path() -> None:
    """Also where nothing branches away, an address that would not fit comes out as 0; one that fits as itself."""
    world = without_branches()
    content = {MEMORY: b"".join(word.to_bytes(8, "little") for word in (0, 3, SIZE))}
    for size in (1, 8, 4096, SIZE):
        last = SIZE - size
        for start in (0, 1, last // 2, last, last + 1, SIZE, SIZE + 1, 1 << 32, 1 << 63, 2**64 - size, 2**64 - 1):
            result = world.call(FUNCTION, [MEMORY, start, size], content)
            assert result[1] == (start if start <= last else 0), (size, hex(start), result)

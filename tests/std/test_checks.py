"""The table of failed checks: each check's address gives its file and line, every other address gives nothing."""

from __future__ import annotations

import pytest

from dsl.std.checks import append_place
from dsl.std.power import power_off
from dsl.std.print import LINE_CAPACITY
from tests.execution.emulated import TOP
from tests.std.ported import Ported

pytestmark = pytest.mark.t1


def place_of(world: Ported, address: int) -> tuple[bool, str]:
    """What it says of an address."""
    line = world.write(0, bytes(8 + LINE_CAPACITY))
    found = world.call(line, address) & 0xFF
    size = int.from_bytes(world.get(0, 8), "little")
    assert found in (0, 1)
    return found == 1, world.get(8, size).decode()


def test_places_of_checks() -> None:
    """All rows of the program's own table, and the addresses beside them."""
    world = Ported(append_place)
    program = world.emulated.program
    checks = {program.base + offset: f"{trap.file[-32:]}:{trap.line}" for offset, trap in program.linked.checks}
    assert len(checks) > 4
    for address in checks:
        for beside in (address - 1, address, address + 1):
            assert place_of(world, beside) == (beside in checks, checks.get(beside, ""))
    low, high = program.base, program.base + program.memory_size
    for address in (
        0,
        low - 1,
        low,
        high,
        high + (1 << 32),
        min(checks) - (1 << 32),
        (1 << 64) - 1,
        min(checks) + (1 << 32),
    ):
        assert place_of(world, address) == (False, "")


def test_the_machine_is_turned_off() -> None:
    """Bochs's word byte by byte, QEMU's sleep; then it halts with interrupts off, for good."""
    import unicorn as uc

    world = Ported(power_off)
    halts: list[int] = []

    def halt(engine: uc.Uc, address: int, _size: int, _data: object) -> None:
        if engine.mem_read(address, 1) == b"\xf4":
            halts.append(address)
            if len(halts) == 3:
                engine.emu_stop()

    world.engine.hook_add(uc.UC_HOOK_CODE, halt)
    from unicorn import x86_const as x86

    world.engine.reg_write(x86.UC_X86_REG_RSP, TOP)
    flags: int = 0
    start = world.emulated.program.symbols[world.emulated.program.entry][0]
    while len(halts) < 3:  # Unicorn ends its run at a HLT
        world.engine.emu_start(start, 0, count=1000)
        flags = world.engine.reg_read(x86.UC_X86_REG_RFLAGS)
        start = world.engine.reg_read(x86.UC_X86_REG_RIP)
    assert len(set(halts)) == 1
    assert not flags >> 9 & 1
    assert world.accesses == [*(("out", 0x8900, byte) for byte in b"Shutdown"), ("out", 0x604, 0x2000)]

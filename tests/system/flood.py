"""A box that floods the monitor: the cheapest exits and the dearest hypercall, again and again."""

from __future__ import annotations

from typing import Final

from dsl.lang import address_of, machine, size_of, static, text, u16, u32, u64
from dsl.lang.intrinsics import cpuid, in8, out8, vmcall
from dsl.std.print import Line, append_decimal, append_text, line_bytes
from dsl.std.serial import serial_can_receive, serial_start, serial_write
from vmm.abi import Endorsement, EndorseRequest, Hypercall, Status

EXITS: Final = 2000  # of the cheap kind, in a round
DATA_SIZE: Final = 256
SAY_EVERY: Final = 16  # rounds
DELAY_PORT: Final = u16(0x80)
ABSENT_PORT: Final = u16(0x2E8)

REQUEST: Final = static(EndorseRequest)
ENDORSEMENT: Final = static(Endorsement)


@machine
def flood_exits() -> None:
    """CPUID, port accesses, VERSION and calls that are refused."""
    left = u64(EXITS)
    while left != 0:
        _ = cpuid(u32(0), u32(0))
        out8(DELAY_PORT, in8(ABSENT_PORT))
        _ = vmcall(Hypercall.VERSION.value, u64(0), u64(0), u64(0), u64(0), u64(0))
        _ = vmcall(u64(0xFFFF), u64(0), u64(0), u64(0), u64(0), u64(0))
        left -= 1


@machine
def endorse() -> bool:
    """Have something endorsed; True when it was."""
    REQUEST.data_size = u32(DATA_SIZE)
    answer = vmcall(
        Hypercall.ENDORSE.value,
        address_of(REQUEST).as_u64(),
        u64(size_of(EndorseRequest)),
        address_of(ENDORSEMENT).as_u64(),
        u64(size_of(Endorsement)),
        u64(0),
    )
    return answer.status == Status.OK.value


@machine
def say(rounds: u64, endorsed: u64) -> None:
    """Tell how far the flood has come."""
    line = Line()
    append_text(line, text("flooded "))
    append_decimal(line, rounds)
    append_text(line, text(" endorsed "))
    append_decimal(line, endorsed)
    append_text(line, text("\n"))
    serial_write(line_bytes(line))


@machine
def start() -> None:
    """The box's first instruction: the flood begins with the first key that is typed."""
    _ = serial_start()
    serial_write(text("flood ready\n"))
    while not serial_can_receive():
        _ = vmcall(Hypercall.YIELD.value, u64(0), u64(0), u64(0), u64(0), u64(0))
    rounds = u64(0)
    endorsed = u64(0)
    while True:
        flood_exits()
        endorsed += u64(endorse())
        rounds += 1
        if rounds % SAY_EVERY == 0:
            say(rounds, endorsed)

"""The yardstick's dispatch in the language: 64 reasons, 24 handled, a little work each on a struct in memory."""

from __future__ import annotations

from typing import Final

from dsl.lang import Array, HostVirtual, Struct, array, machine, u32, u64
from dsl.lang import dispatch as dispatch_table

ALL_ONES: Final = u64(0xFFFF_FFFF_FFFF_FFFF)


class State(Struct, size=656):
    """What the handlers work on."""

    registers: Array[u64] = array(16)
    rip: u64
    flags: u64
    counts: Array[u64] = array(64)


@machine
def reason_0(s: State, q: u64) -> None:
    """What reason 0 does."""
    s.flags |= 1


@machine
def reason_1(s: State, q: u64) -> None:
    """What reason 1 does."""
    s.flags &= ~u64(2)


@machine
def reason_2(s: State, q: u64) -> None:
    """What reason 2 does."""
    s.flags = u64(0)
    s.rip = u64(0xFFF0)


@machine
def reason_3(s: State, q: u64) -> None:
    """What reason 3 does."""
    r = s.registers
    r[1] += q


@machine
def reason_4(s: State, q: u64) -> None:
    """What reason 4 does."""
    r = s.registers
    r[2] -= q


@machine
def reason_7(s: State, q: u64) -> None:
    """What reason 7 does."""
    s.flags |= 4


@machine
def reason_9(s: State, q: u64) -> None:
    """What reason 9 does."""
    r = s.registers
    r[0] = q >> 32
    s.rip += 2


@machine
def reason_10(s: State, q: u64) -> None:
    """What reason 10 does."""
    r = s.registers
    r[0] = r[0] * 3 + 1
    r[3] = u64(0x756E6547)
    r[1] = u64(0x6C65746E)
    r[2] = u64(0x49656E69)
    s.rip += 2


@machine
def reason_12(s: State, q: u64) -> None:
    """What reason 12 does."""
    s.rip += 1


@machine
def reason_14(s: State, q: u64) -> None:
    """What reason 14 does."""
    r = s.registers
    r[4] ^= q
    s.rip += 3


@machine
def reason_15(s: State, q: u64) -> None:
    """What reason 15 does."""
    r = s.registers
    r[0] = s.counts[15] & 0xFFFF_FFFF
    r[2] = s.counts[15] >> 32
    s.rip += 2


@machine
def reason_16(s: State, q: u64) -> None:
    """What reason 16 does."""
    r = s.registers
    r[0] += 17
    r[2] ^= q
    s.rip += 2


@machine
def reason_18(s: State, q: u64) -> None:
    """What reason 18 does."""
    r = s.registers
    r[0] = u64(0) if r[0] == q else ALL_ONES
    s.rip += 3


@machine
def reason_28(s: State, q: u64) -> None:
    """What reason 28 does."""
    r = s.registers
    number = q & 15
    kind = (q >> 4) & 3
    general = (q >> 8) & 15
    if kind == 0:
        if number == 0:
            r[8] = r[general]
        elif number == 3:
            r[9] = r[general]
        elif number == 4:
            r[10] = r[general]
    elif kind == 1:
        r[general] = r[9]
    s.rip += 3


@machine
def reason_29(s: State, q: u64) -> None:
    """What reason 29 does."""
    r = s.registers
    r[5] = q
    s.rip += 3


@machine
def reason_30(s: State, q: u64) -> None:
    """What reason 30 does."""
    r = s.registers
    size = (q & 7) + 1
    if q & 8 != 0:
        mask = u64(0xFFFF_FFFF) if size == 4 else u64(0xFFFF) if size == 2 else u64(0xFF)
        r[0] = (r[0] & ~mask) | mask
    else:
        r[11] = r[0]
    s.rip += (q >> 32) & 15


@machine
def reason_31(s: State, q: u64) -> None:
    """What reason 31 does."""
    r = s.registers
    r[0] = (r[1] * 0x9E3779B1) & 0xFFFF_FFFF
    r[2] = u64(0)
    s.rip += 2


@machine
def reason_32(s: State, q: u64) -> None:
    """What reason 32 does."""
    r = s.registers
    r[12] = (r[2] << 32) | (r[0] & 0xFFFF_FFFF)
    s.rip += 2


@machine
def reason_36(s: State, q: u64) -> None:
    """What reason 36 does."""
    s.flags |= 8
    s.rip += 3


@machine
def reason_40(s: State, q: u64) -> None:
    """What reason 40 does."""
    s.rip += 2


@machine
def reason_48(s: State, q: u64) -> None:
    """What reason 48 does."""
    r = s.registers
    r[13] = q & ~u64(0xFFF)
    r[14] += 1


@machine
def reason_49(s: State, q: u64) -> None:
    """What reason 49 does."""
    s.flags |= 16


@machine
def reason_54(s: State, q: u64) -> None:
    """What reason 54 does."""
    s.rip += 2


@machine
def reason_55(s: State, q: u64) -> None:
    """What reason 55 does."""
    r = s.registers
    r[15] = (r[2] << 32) | (r[0] & 0xFFFF_FFFF)
    s.rip += 3


@machine
def otherwise(s: State, q: u64) -> None:
    """What every other reason does."""
    s.flags |= u64(1) << 63


HANDLERS: Final = dispatch_table(
    {
        0: reason_0,
        1: reason_1,
        2: reason_2,
        3: reason_3,
        4: reason_4,
        7: reason_7,
        9: reason_9,
        10: reason_10,
        12: reason_12,
        14: reason_14,
        15: reason_15,
        16: reason_16,
        18: reason_18,
        28: reason_28,
        29: reason_29,
        30: reason_30,
        31: reason_31,
        32: reason_32,
        36: reason_36,
        40: reason_40,
        48: reason_48,
        49: reason_49,
        54: reason_54,
        55: reason_55,
    },
    default=otherwise,
)


@machine
def dispatch(state: HostVirtual, reason: u32, q: u64) -> None:
    """Count the reason, and do what it asks."""
    # Safe because: the caller gives a State.
    s = State.at(state)
    s.counts[reason & 63] += 1
    HANDLERS.call(reason, s, q)

"""What the processor says about an exit for IN or OUT (SDM Vol. 3C, table 28-5)."""

from __future__ import annotations

from typing import Final

from dsl.hw import vmx
from dsl.lang import Record, machine, u16, u64
from dsl.lang.intrinsics import vmread

IO_SIZE: Final = 7
IO_IN: Final = 1 << 3
IO_STRING: Final = 1 << 4


class IoExit(Record):
    """An IN or OUT."""

    port: u16
    width: u64  # bytes
    is_in: bool
    is_string: bool  # INS or OUTS


@machine
def io_exit() -> IoExit:
    """Describe an exit for IN or OUT."""
    qualification = vmread(vmx.EXIT_QUALIFICATION)
    return IoExit(
        (qualification >> 16).truncate(u16),
        (qualification & IO_SIZE) + 1,
        qualification & IO_IN != 0,
        qualification & IO_STRING != 0,
    )

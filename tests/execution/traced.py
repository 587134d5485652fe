"""What a run shows to an observer: every block entered and every address touched, in order, as one hash.

Unicorn calls machine code for each, written in the language and emitted for this processor: a callback in Python takes fifty times as long.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, Final

import unicorn as uc
from unicorn.unicorn_py3.unicorn import uclib

from dsl.compiler.pipeline import compile_function
from dsl.lang import Struct, machine, rotate_left, size_of, u32, u64
from tests.execution.native import Native

ACCESS: Final = 1 << 63  # tells an access from a block
SIZE_SHIFT: Final = 52


class Trace(Struct):
    """The hash so far, in two words that mix differently, and how much went into it."""

    first: u64
    second: u64
    count: u64


@machine
def absorb(trace: Trace, event: u64) -> None:
    """Take one event in; both steps are invertible, so that two traces differ from their first difference on."""
    trace.first = rotate_left(trace.first ^ event, 29) * 0x9E37_79B9_7F4A_7C15
    trace.second = (rotate_left(trace.second, 41) + event) * 0xD6E8_FEB8_6659_FD93
    trace.count += 1


@machine
def note_block(engine: u64, address: u64, size: u32, trace: Trace) -> None:
    """Unicorn's uc_cb_hookcode_t."""
    absorb(trace, address)


@machine
def note_access(engine: u64, kind: u32, address: u64, size: u32, value: u64, trace: Trace) -> None:
    """Unicorn's uc_cb_hookmem_t; kind tells reads from writes. The value is not looked at."""
    absorb(trace, address ^ (u64(kind * 256 + size) << SIZE_SHIFT) ^ ACCESS)


@cache
def callback(function: Any) -> tuple[Native, int]:
    """A machine function on this processor, and its address."""
    native = Native(compile_function(function))
    return native, native.address + native.program.symbols[native.program.entry][0] - native.program.base


class Tracer:
    """Follows an engine from now on."""

    def __init__(self, engine: Any) -> None:
        self.state = (ctypes.c_uint64 * (size_of(Trace) // 8))()
        for kind, function in ((uc.UC_HOOK_BLOCK, note_block), (uc.UC_HOOK_MEM_VALID, note_access)):
            handle = ctypes.c_ulong()
            error = uclib.uc_hook_add(
                engine._uch, ctypes.byref(handle), kind, callback(function)[1], ctypes.addressof(self.state), 1, 0
            )
            assert error == uc.UC_ERR_OK, uc.UcError(error)

    def clear(self) -> None:
        """Begin anew."""
        ctypes.memset(self.state, 0, ctypes.sizeof(self.state))

    @property
    def count(self) -> int:
        """How many blocks and accesses there were."""
        return int(self.state[2])

    def digest(self) -> tuple[int, int, int]:
        """Equal for equal traces."""
        return self.state[0], self.state[1], self.state[2]

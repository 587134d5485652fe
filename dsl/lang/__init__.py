"""Everything a program may name, in one namespace: dsl/README.md says what each means.

What is imported here is what `dsl.lang` has.
"""
# ruff: noqa: F401, F403
# mypy: implicit-reexport

from __future__ import annotations

from dsl.lang.addresses import GuestPhysical, GuestVirtual, HostPhysical, HostVirtual
from dsl.lang.annotations import Device, Ref, Shared, Static
from dsl.lang.arithmetic import (
    Carry,
    SecretCarry,
    SecretWide,
    Wide,
    add_with_carry,
    between,
    byte_swap,
    checked_add,
    checked_multiply,
    checked_subtract,
    count_leading_zeros,
    count_trailing_zeros,
    divide_truncating,
    maximum,
    minimum,
    multiply_high,
    multiply_wide,
    population_count,
    remainder_truncating,
    rotate_left,
    rotate_right,
    rounds,
    shift_left_wrapping,
    shift_right_wrapping,
    subtract_with_borrow,
    upto,
)
from dsl.lang.array import Array
from dsl.lang.bits import Bits, bit, bits
from dsl.lang.failure import CheckFailed, DeclarationError, Failure, MachineError, Stopped, stop
from dsl.lang.functions import MachineOptions, asm, machine
from dsl.lang.instruction import Field, Instruction, Operand, field16, field32, field64, natural
from dsl.lang.intrinsics import *
from dsl.lang.memory import Event
from dsl.lang.model import Cpu, Halted, Machine, Vmx, current_machine
from dsl.lang.record import Record
from dsl.lang.staging import (
    Declaration,
    Dispatch,
    PerCpu,
    address_of,
    array_at,
    check_files,
    check_places,
    dispatch,
    erase,
    frame_array,
    function_address,
    image_base,
    image_end,
    per_cpu,
    static,
    static_array,
    supplied,
    table,
    text,
)
from dsl.lang.struct import Struct, array, at, offset_of, size_of
from dsl.lang.taint import (
    Secret,
    Untrusted,
    as_secret,
    constant_time_equal,
    constant_time_select,
    declassify,
    declassify_array,
    secret,
    untrusted,
    widen_secret,
    widen_untrusted,
)
from dsl.lang.words import i8, i16, i32, i64, u8, u16, u32, u64

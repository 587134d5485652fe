"""What the outside sees is the same in both worlds, whatever the passes: each device access once and in order, and erased bytes gone."""

from __future__ import annotations

from typing import Any, Final

import pytest
import unicorn as uc

from dsl.compiler.pipeline import compile_function
from dsl.lang import (
    Array,
    Device,
    HostVirtual,
    Machine,
    Shared,
    Struct,
    array_at,
    erase,
    frame_array,
    machine,
    u8,
    u16,
    u32,
    u64,
    upto,
)
from tests.execution.emulated import STACK, STACK_SIZE, Emulated
from tests.execution.support import OPTIONS, name_of

DEVICE: Final = 0x5000_0000
CONTENT: Final = bytes(range(1, 65))


class Registers(Struct):
    """A device's registers, of several widths."""

    status: Device[u32]
    command: Device[u16]
    data: Device[u8]
    spare: u8
    wide: Shared[u64]


@machine
def drive(base: HostVirtual, count: u64) -> u64:
    """Reads that are not used, reads and writes that repeat, an access in a loop that changes nothing."""
    # Safe because the test maps a page there.
    device = Registers.at(base)
    first = device.status
    again = device.status
    device.command = u16(3)
    device.command = u16(3)
    for _turn in upto(count % 3):
        device.data = again.truncate(u8)
        if device.data == 0:
            first += 1
    device.wide = device.wide + 0
    _unused = device.status
    total = u64(first ^ again)
    device.spare = u8(9)  # not a device register: may be merged
    device.spare = u8(7)
    return total + device.wide


@machine
def forgets(base: HostVirtual, seed: u64) -> u64:
    """Works in a frame buffer and in memory outside, erases both, and never looks at them again."""
    buffer = frame_array(u8, 32)
    for i in upto(4):
        buffer.store_u64(i * 8, seed ^ i)
    total = buffer.load_u64(3)
    # Safe because the test maps a page there.
    outside: Array[u8] = array_at(u8, base, u64(16))
    outside.store_u64(0, seed)
    erase(buffer)
    erase(outside)
    return total


@machine
def remembers(seed: u64) -> u64:
    """The same without erasing: what the test must find."""
    buffer = frame_array(u8, 32)
    for i in upto(4):
        buffer.store_u64(i * 8, seed ^ i)
    return buffer.load_u64(3)


def python_trace(count: int) -> tuple[int, list[tuple[str, int, int, int]]]:
    """Result and volatile accesses under CPython."""
    with Machine() as model:
        model.memory.map(DEVICE, 64, CONTENT)
        result = int(drive(HostVirtual(DEVICE), u64(count)))
        return result, [tuple(event) for event in model.events]  # type: ignore[misc]


def emulated_trace(count: int, options: dict[str, Any]) -> tuple[int, list[tuple[str, int, int, int]]]:
    """Result and accesses of the device's page in Unicorn."""
    program = compile_function(drive, verify=True, **options)
    emulated = Emulated(program)
    engine = emulated.engine
    engine.mem_map(DEVICE, 4096)
    engine.mem_write(DEVICE, CONTENT)
    found: list[tuple[str, int, int, int]] = []

    def access(_engine: Any, kind: int, address: int, size: int, value: int, _data: object) -> None:
        if address == DEVICE + 7:
            return  # the register that is none
        if kind == uc.UC_MEM_READ:
            content = int.from_bytes(engine.mem_read(address, size), "little")
            found.append(("read", address, size * 8, content))
        else:
            found.append(("write", address, size * 8, value & ((1 << size * 8) - 1)))

    engine.hook_add(uc.UC_HOOK_MEM_READ | uc.UC_HOOK_MEM_WRITE, access, None, DEVICE, DEVICE + 4095)
    result = emulated.call(program.entry, [DEVICE, count])
    assert not isinstance(result, str)
    return result[0], found


@pytest.mark.t1
@pytest.mark.parametrize("options", OPTIONS, ids=name_of)
def test_device_accesses_are_kept(options: dict[str, Any]) -> None:
    """One access of the declared width per mention, in program order."""
    for count in range(3):
        expected = python_trace(count)
        assert len(expected[1]) == 8 + 2 * count
        assert emulated_trace(count, options) == expected


@pytest.mark.t1
@pytest.mark.parametrize("options", OPTIONS, ids=name_of)
def test_erased_bytes_are_gone(options: dict[str, Any]) -> None:
    """Nothing of the seed is left in the frame or outside; without the erasure the test would find it."""
    seed = 0xA1B2C3D4E5F60718
    program = compile_function(forgets, verify=True, **options)
    emulated = Emulated(program)
    emulated.engine.mem_map(DEVICE, 4096)
    emulated.engine.mem_write(DEVICE, CONTENT)
    result = emulated.call(program.entry, [DEVICE, seed])
    expected = b"".join((seed ^ turn).to_bytes(8, "little") for turn in range(4))
    assert not isinstance(result, str)
    assert result[0] == int.from_bytes(expected[3:11], "little")
    assert bytes(emulated.engine.mem_read(DEVICE, 17)) == bytes(16) + CONTENT[16:17]
    below = stack_of(emulated)
    assert (seed ^ 1).to_bytes(8, "little") not in below
    assert (seed ^ 2).to_bytes(8, "little") not in below


def stack_of(emulated: Emulated) -> bytes:
    """All of the stack, used or not."""
    return bytes(emulated.engine.mem_read(STACK, STACK_SIZE))


@pytest.mark.t1
def test_kept_bytes_would_be_found() -> None:
    """A function that does not erase leaves its buffer on the stack."""
    emulated = Emulated(compile_function(remembers))
    emulated.call(emulated.program.entry, [0xA1B2C3D4E5F60718])
    assert (0xA1B2C3D4E5F60718 ^ 2).to_bytes(8, "little") in stack_of(emulated)

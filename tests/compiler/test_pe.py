"""An EFI application is what the PE format says, read by a strict reader of our own; and efi_call keeps the Microsoft convention."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

import pytest
import unicorn as uc
from unicorn import x86_const as x86

from dsl.compiler.link import LinkError
from dsl.compiler.pe import checksum
from dsl.compiler.pipeline import Program, compile_function, compile_program
from dsl.lang import Machine, MachineError, efi_call, machine, static_array, table, u64

pytestmark = pytest.mark.t1
BASE: Final = 0x401000
PRIMES: Final = table(u64, [2, 3, 5, 7])
SUMS: Final = static_array(u64, 4)


@machine
def program_with_all_sections(index: u64) -> u64:
    """Text, read-only data, a check and BSS."""
    SUMS[index] += PRIMES[index]
    return SUMS[index]


@machine
def call_with_live_values(function: u64, a: u64, b: u64, c: u64, d: u64) -> u64:
    """Values that live across a call, in more registers than are preserved."""
    first = a * 3
    second = b * 5
    third = c * 7
    fourth = d * 11
    status = efi_call(function, a, b, c, d, a + b)
    again = efi_call(function, status, second, third, fourth, first)
    return first + second + third + fourth + status + again + a + b + c + d + function


@dataclass(frozen=True)
class Section:
    """A row of the section table."""

    name: str
    memory: int
    address: int
    size: int
    offset: int
    flags: int


@dataclass(frozen=True)
class Portable:
    """What the reader found."""

    entry: int
    base: int
    image_size: int
    sections: tuple[Section, ...]
    loaded: bytes


def read_pe(file: bytes) -> Portable:
    """Read an EFI application, refusing whatever firmware is known to refuse."""
    assert file[:2] == b"MZ"
    (at,) = struct.unpack_from("<I", file, 60)
    signature, machine_type, count, time, symbols, symbol_count, optional_size, flags = struct.unpack_from(
        "<4sHHIIIHH", file, at
    )
    assert (signature, machine_type, time, symbols, symbol_count) == (b"PE\0\0", 0x8664, 0, 0, 0)
    assert flags & 2
    assert not flags & 1, "relocations are not stripped: it may be loaded anywhere"
    place = at + 24
    magic, _, _, code, data, zeroed, entry, code_base, base, alignment, file_alignment = struct.unpack_from(
        "<HBBIIIIIQII", file, place
    )
    assert magic == 0x20B
    assert base % 0x10000 == 0
    assert alignment == file_alignment == 4096
    image_size, header_size, found_checksum, subsystem, characteristics = struct.unpack_from("<IIIHH", file, place + 56)
    assert subsystem == 10
    assert characteristics & 0x100, "NX compatible"
    blank = bytearray(file)
    blank[place + 64 : place + 68] = bytes(4)
    assert found_checksum == checksum(blank)
    (directories,) = struct.unpack_from("<I", file, place + 108)
    assert optional_size == 112 + 8 * directories
    assert not any(file[place + 112 : place + optional_size])
    rows = [struct.unpack_from("<8sIIIIIIHHI", file, place + optional_size + 40 * index) for index in range(count)]
    assert place + optional_size + 40 * count <= header_size
    sections = tuple(Section(row[0].rstrip(b"\0").decode(), row[1], row[2], row[3], row[4], row[9]) for row in rows)
    loaded = bytearray(image_size)
    loaded[:header_size] = file[:header_size]
    end, file_end = header_size, header_size
    for section in sections:
        assert section.address == end, "in order, without gaps, none at address 0"
        assert not (section.flags & 0x20000000 and section.flags & 0x80000000), "writable and executable"
        assert section.size <= section.memory
        if section.size:
            assert section.offset == file_end
            file_end += section.size
        loaded[section.address : section.address + section.size] = file[section.offset : section.offset + section.size]
        end = -(-(section.address + section.memory) // alignment) * alignment
    assert end == image_size
    assert file_end == len(file)
    text = sections[0]
    assert text.address == code_base
    assert text.address <= entry < text.address + text.memory
    sizes = [sum(s.memory for s in sections if s.flags & kind) for kind in (0x20, 0x40, 0x80)]
    assert sizes == [code, data, zeroed]
    return Portable(entry, base, image_size, sections, bytes(loaded))


def test_the_file_is_an_efi_application() -> None:
    """Three sections, the flat program a page above ImageBase, its BSS as zeroed memory; the same every time."""
    program = compile_program(program_with_all_sections, base=BASE)
    found = read_pe(program.pe())
    assert [section.name for section in found.sections] == [".text", ".rdata", ".bss"]
    assert found.base == BASE - 4096
    assert found.loaded[4096:] == program.image.ljust(program.memory_size, b"\0")
    assert found.entry == program.symbols["tests.compiler.test_pe.program_with_all_sections"][0] - found.base
    assert compile_program(program_with_all_sections, base=BASE).pe() == program.pe()


def test_a_program_without_data_has_no_such_sections() -> None:
    """A section without memory is refused by some firmware."""
    program = compile_program(call_with_live_values, base=BASE)
    assert [section.name for section in read_pe(program.pe()).sections] == [".text"]


def test_it_runs_wherever_it_is_loaded() -> None:
    """Nothing needs relocation: the same bytes work at another address."""
    found = read_pe(compile_program(program_with_all_sections, base=BASE).pe())
    for place in (0x10000, 0x7FFF_0000, 0x12_3456_7000):
        engine: Any = uc.Uc(uc.UC_ARCH_X86, uc.UC_MODE_64)
        engine.mem_map(place, found.image_size)
        engine.mem_write(place, found.loaded)
        engine.mem_map(0x5000, 0x2000)
        for wanted in (5, 10):
            engine.mem_write(0x6000, (0x5000).to_bytes(8, "little"))
            engine.reg_write(x86.UC_X86_REG_RSP, 0x6000)
            engine.reg_write(x86.UC_X86_REG_RDI, 2)
            engine.emu_start(place + found.entry, 0x5000)
            assert engine.reg_read(x86.UC_X86_REG_RAX) == wanted


@pytest.mark.parametrize("base", [0x1000, 0x400000, 0x402000])
def test_a_base_that_no_pe_can_have_is_refused(base: int) -> None:
    """ImageBase is not zero, and a multiple of 64 KiB."""
    with pytest.raises(LinkError, match="expected a base of a multiple of 0x10000 plus a page"):
        compile_program(program_with_all_sections, base=base).pe()


FIRMWARE: Final = 0x900000
MASK: Final = (1 << 64) - 1


def firmware(a1: int, a2: int, a3: int, a4: int, a5: int) -> int:
    """A function whose result depends on every argument and its place."""
    return (a1 + 2 * a2 + 4 * a3 + 8 * a4 + 16 * a5) & MASK


def run_under_firmware(program: Program, arguments: list[int], skew: int) -> int:
    """Run with a callee that follows the convention and destroys whatever it allows to be destroyed."""
    engine: Any = uc.Uc(uc.UC_ARCH_X86, uc.UC_MODE_64)
    engine.ctl_set_cpu_model(x86.UC_CPU_X86_ICELAKE_SERVER)
    engine.mem_map(program.base, program.memory_size)
    engine.mem_write(program.base, program.image)
    engine.mem_map(FIRMWARE, 4096)
    engine.mem_write(FIRMWARE, b"\xc3")
    engine.mem_map(0x700000, 0x10000)
    stack = 0x70FF00 - skew
    engine.mem_write(stack, (0x700000).to_bytes(8, "little"))
    engine.reg_write(x86.UC_X86_REG_RSP, stack)
    names = ("RDI", "RSI", "RDX", "RCX", "R8")
    for name, value in zip(names, arguments, strict=True):
        engine.reg_write(getattr(x86, f"UC_X86_REG_{name}"), value)
    saved = {name: 0xC0DE0000 + index for index, name in enumerate(("RBX", "RBP", "R12", "R13", "R14", "R15"))}
    for name, value in saved.items():
        engine.reg_write(getattr(x86, f"UC_X86_REG_{name}"), value)

    def called(machine: Any, address: int, size: int, user: object) -> None:
        rsp = machine.reg_read(x86.UC_X86_REG_RSP)
        assert (rsp + 8) % 16 == 0
        words = [machine.reg_read(getattr(x86, f"UC_X86_REG_{name}")) for name in ("RCX", "RDX", "R8", "R9")]
        words.append(int.from_bytes(machine.mem_read(rsp + 40, 8), "little"))
        for name in ("RCX", "RDX", "R8", "R9", "R10", "R11"):
            machine.reg_write(getattr(x86, f"UC_X86_REG_{name}"), 0xDEAD_0000_DEAD)
        machine.mem_write(rsp + 8, b"\xee" * 32)  # its home for four registers
        machine.reg_write(x86.UC_X86_REG_RAX, firmware(*words))

    engine.hook_add(uc.UC_HOOK_CODE, called, begin=FIRMWARE, end=FIRMWARE)
    entry = program.symbols["tests.compiler.test_pe.call_with_live_values"][0]
    engine.emu_start(entry, 0x700000)
    for name, value in saved.items():
        assert engine.reg_read(getattr(x86, f"UC_X86_REG_{name}")) == value
    assert engine.reg_read(x86.UC_X86_REG_RSP) == stack + 8
    result: int = engine.reg_read(x86.UC_X86_REG_RAX)
    return result


@pytest.mark.parametrize("pool", [None, 4])
@pytest.mark.parametrize("skew", [0, 8])
def test_a_call_of_firmware_is_the_same_in_both_worlds(pool: int | None, skew: int) -> None:
    """Arguments in place, stack aligned, shadow space, what lives across the call untouched: as under CPython."""
    arguments = [FIRMWARE, 3, 1 << 40, 0xFFFF_FFFF_FFFF_FFFF, 77]
    with Machine() as model:
        model.callables[FIRMWARE] = firmware
        wanted = int(call_with_live_values(*(u64(value) for value in arguments)))
    program = compile_function(call_with_live_values, pool=pool)
    assert run_under_firmware(program, arguments, skew) == wanted


def test_a_function_that_is_not_there_is_named(model: Machine) -> None:
    """The model calls nothing that it was not given."""
    with pytest.raises(MachineError, match=r"efi_call of 0x1234, which is not in machine\.callables"):
        efi_call(u64(0x1234), u64(0), u64(0), u64(0), u64(0), u64(0))

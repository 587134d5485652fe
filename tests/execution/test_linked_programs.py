"""What the linker makes: the check table, naked functions, supplied tables, several results, stack arguments, ELF."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Final

import pytest
from elftools.elf.elffile import ELFFile

from dsl.compiler.pipeline import compile_function, compile_program
from dsl.lang import (
    Array,
    HostVirtual,
    Record,
    Struct,
    array,
    asm,
    check_files,
    check_places,
    frame_array,
    function_address,
    image_base,
    image_end,
    machine,
    static_array,
    supplied,
    u8,
    u64,
)
from tests.execution.emulated import Emulated
from tests.execution.native import Native

KEY: Final = supplied(u8, 4, "tests.key")
COUNTER: Final = static_array(u64, 2)
STEP: Final = 3


class Long(Struct):
    """A field that lies where no displacement reaches."""

    text: Array[u8] = array(1 << 33)
    last: u64


class Many(Record):
    """More results than System V returns."""

    a: u64
    b: u64
    c: u64
    d: u64
    e: u64
    f: u64
    g: u64
    h: u64


@machine
def far(words: Array[u64], place: Long) -> u64:
    """Constant places more than 2**31 bytes from where they are counted."""
    place.last = words[1 << 30]
    place.text[1 << 32] = u8(7)
    return place.text.slice(1 << 31, 1 << 32).load_u64(0x7FFF_FFF9)


@machine
def rotated(a: u64, b: u64, c: u64, d: u64, e: u64, f: u64, g: u64, h: u64) -> Many:
    """Eight arguments, two of them on the stack; eight results."""
    return Many(b, c, d, e, f, g, h, a)


@machine
def rotated_twice(a: u64, b: u64, c: u64, d: u64, e: u64, f: u64, g: u64, h: u64) -> Many:
    """The results of one call are the arguments of another."""
    r = rotated(a, b, c, d, e, f, g, h)
    return rotated(r.a, r.b, r.c, r.d, r.e, r.f, r.g, r.h)


@machine
def indexed(values: Array[u64], index: u64) -> u64:
    """A check that may fail."""
    return values[index]


@machine
def reads_past_the_end(index: u64) -> u64:
    """Fails its check when index is 4 or more."""
    values = frame_array(u64, 4)
    values[0] = u64(7)
    return indexed(values, index)


@machine
def table_sizes() -> u64:
    """The check table as the program sees itself."""
    return check_places().length * 1000 + check_files().length


@machine
def first_row() -> u64:
    """The first row of the check table, with a check in reach."""
    return check_places().load_u64(0) + reads_past_the_end(u64(1))


@machine
def image_size() -> u64:
    """Its own size in memory."""
    return image_end() - image_base()


@machine
def key() -> u64:
    """The bytes that the build supplied."""
    return u64(KEY[0]) + u64(KEY[3]) * 256


@machine(naked=True, model=lambda a: u64(int(a) + STEP))
def naked_add(a: u64) -> u64:
    """An int constant, a symbol and a call in assembly."""
    asm(
        """
        push rbx
        mov rbx, rdi
        call {helper}
        lea rcx, [rip + {counter}]
        add qword ptr [rcx], rbx
        cmp rbx, {step}
        ja over
        mov rax, 1
    over:
        add rax, {step}
        pop rbx
        ret
        """,
        helper=naked_helper,
        counter=COUNTER,
        step=STEP,
    )


@machine(naked=True, model=lambda: u64(0))
def naked_helper() -> u64:
    """Called from assembly."""
    asm("mov rax, rdi; ret")


@machine
def around_naked(a: u64) -> u64:
    """Calls assembly, then reads what it left in an object."""
    return naked_add(a) * 100 + COUNTER[0]


@machine
def address_taken() -> HostVirtual:
    """A function's own address."""
    return function_address(indexed)


@pytest.mark.t1
@pytest.mark.parametrize("pool", [None, 4])
def test_eight_arguments_and_results(pool: int | None) -> None:
    """In order, in both worlds, at any pool."""
    program = compile_function(rotated_twice, pool=pool, disable=("inline",))
    for world in (Native(program), Emulated(program)):
        assert world.call(program.entry, [1, 2, 3, 4, 5, 6, 7, 8]) == (3, 4, 5, 6, 7, 8, 1, 2)


@pytest.mark.t1
def test_failed_check_names_its_line() -> None:
    """The row of the ud2 that was reached holds file and line of the index; every row is a ud2 and they are sorted."""
    program = compile_function(reads_past_the_end)
    emulated = Emulated(program)
    assert emulated.call(program.entry, [3]) != "stopped"
    assert emulated.call(program.entry, [4]) == "stopped"
    import unicorn.x86_const as x86

    stopped_at = emulated.engine.reg_read(x86.UC_X86_REG_RIP) - program.base
    table = section(program.image, program, "linker.check_places")
    rows = [struct.unpack_from("<IHH", table, offset) for offset in range(0, len(table), 8)]
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert all(program.image[row[0] : row[0] + 2] == b"\x0f\x0b" for row in rows)
    _, file, line = next(row for row in rows if row[0] == stopped_at)
    files = section(program.image, program, "linker.check_files")
    assert files[32 * file : 32 * file + 32].rstrip(b"\0").decode().endswith("test_linked_programs.py"[-20:])
    assert "values[index]" in Path(__file__).read_text().splitlines()[line - 1]


def section(image: bytes, program: object, symbol: str) -> bytes:
    """The bytes of a linker symbol's table."""
    address, size, _ = program.symbols[symbol]  # type: ignore[attr-defined]
    offset = address - program.base  # type: ignore[attr-defined]
    return image[offset : offset + size]


@pytest.mark.t1
def test_program_sees_its_own_tables() -> None:
    """Lengths and content of the check table; the image's size."""
    program = compile_function(first_row)
    table = section(program.image, program, "linker.check_places")
    found = Native(program).call(program.entry, [])[0]
    assert found == int.from_bytes(table[:8], "little")
    program = compile_function(image_size)
    assert Native(program).call(program.entry, [])[0] == program.memory_size
    program = compile_function(table_sizes)
    assert Native(program).call(program.entry, [])[0] == 0


@pytest.mark.t1
def test_supplied_tables() -> None:
    """Their bytes are those of the build; missing or wrong ones are refused."""
    program = compile_function(key, supplied={"tests.key": b"\x01\x02\x03\x04"})
    assert Native(program).call(program.entry, [])[0] == 0x401
    with pytest.raises(ValueError, match=r"'tests\.key' is missing"):
        compile_function(key)
    with pytest.raises(ValueError, match="has 3 bytes"):
        compile_function(key, supplied={"tests.key": b"abc"})


@pytest.mark.t1
def test_naked_functions() -> None:
    """Constants, objects and functions by name."""
    program = compile_function(around_naked)
    for world in (Native(program), Emulated(program)):
        assert world.call(program.entry, [10])[0] == 1310
        assert world.call(program.entry, [2])[0] == 402


@pytest.mark.t1
def test_far_places() -> None:
    """An element, a field and a word of bytes that lie further away than a displacement reaches."""
    emulated, words, place = Emulated(compile_function(far)), 0x10_0000_0000, 0x20_0000_0000
    for page in (words + (1 << 33), place + (1 << 33), place + (1 << 32) - 4096):
        emulated.engine.mem_map(page, 8192)
    emulated.engine.mem_write(words + (1 << 33), bytes([9]))
    assert emulated.call(emulated.program.entry, [words, 1 << 31, place])[0] == 7 << 56
    assert emulated.read(place + (1 << 33), 1) == bytes([9])


@pytest.mark.t1
def test_function_address() -> None:
    """The address of a function is its symbol's."""
    program = compile_function(address_taken)
    assert Emulated(program).call(program.entry, [])[0] == program.symbols[f"{__name__}.indexed"][0]


def test_flat_header() -> None:
    """The 64 bytes of docs/formats.md."""
    base = 0xFFFF_FFFF_8000_0000
    program = compile_program(around_naked, base=base)
    fields = struct.unpack_from("<8sIIIIIIQ24x", program.image)
    magic, entry, text_end, constants_end, data_end, memory_size, reserved, linked_base = fields
    assert (magic, reserved, linked_base) == (b"TRNFLAT1", 0, base)
    assert base + entry == program.symbols[program.entry][0]
    assert text_end % 4096 == constants_end % 4096 == data_end % 4096 == memory_size % 4096 == 0
    assert (
        64 <= entry < text_end <= constants_end <= data_end == len(program.image) < memory_size == program.memory_size
    )


def test_elf_names_functions_and_lines() -> None:
    """Symbols at their addresses; the line table gives the Python line of a function's first instruction."""
    program = compile_function(reads_past_the_end, disable=("inline",))
    elf = ELFFile(io.BytesIO(program.elf()))
    symbols = {symbol.name: symbol for symbol in elf.get_section_by_name(".symtab").iter_symbols()}
    for name, (address, size, kind) in program.symbols.items():
        assert symbols[name]["st_value"] == address
        assert symbols[name]["st_size"] == size
        assert (symbols[name]["st_info"]["type"] == "STT_FUNC") == (kind == "function")
    information = elf.get_dwarf_info()
    unit = next(information.iter_CUs())
    states = [entry.state for entry in information.line_program_for_CU(unit).get_entries() if entry.state is not None]
    lines = Path(__file__).read_text().splitlines()
    start = program.symbols[f"{__name__}.indexed"][0]
    here = max((state for state in states if state.address <= start), key=lambda state: state.address)
    assert "values[index]" in lines[here.line - 1]


def test_listing_and_map() -> None:
    """Every function and instruction stands in the listing, every symbol in the map."""
    program = compile_function(around_naked)
    listing, symbols = program.listing(), program.map()
    for name, (address, _, kind) in program.symbols.items():
        assert f"{address:016x}" in symbols
        assert name in symbols
        if kind == "function":
            assert f"\n{name}:\n" in "\n" + listing
    assert listing.count("\n  ") + listing.startswith("  ") == program.stats["instructions"]


@pytest.mark.parametrize(
    ("options", "text"), [({"pool": 3}, "expected 4 to 15"), ({"disable": ("fnord",)}, "no passes named")]
)
def test_bad_options_are_refused(options: dict[str, object], text: str) -> None:
    """With what was expected."""
    with pytest.raises(ValueError, match=text):
        compile_function(image_size, **options)


@pytest.mark.t1
@pytest.mark.parametrize("pool", range(4, 16))
def test_every_pool(pool: int) -> None:
    """Calls, stack arguments and eight results with any number of registers."""
    program = compile_function(rotated_twice, pool=pool, disable=("inline",))
    assert Native(program).call(program.entry, [1, 2, 3, 4, 5, 6, 7, 8]) == (3, 4, 5, 6, 7, 8, 1, 2)


@pytest.mark.parametrize(
    ("name", "text"), [("fold", "function "), ("select", "machine function "), ("allocate", "ret")]
)
def test_dump(name: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints what a pass made, and nothing otherwise."""
    compile_function(image_size)
    assert capsys.readouterr().out == ""
    compile_function(image_size, dump=name)
    assert text in capsys.readouterr().out

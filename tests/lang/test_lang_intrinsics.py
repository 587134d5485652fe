"""The instruction table: each row agrees with its typed function and assembles to what it says; each model does what the manual says."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

import capstone
import pytest

from dsl.compiler.listing import assemble_template
from dsl.compiler.machine import NAMES, NUMBERS
from dsl.lang import (
    Array,
    CheckFailed,
    Field,
    Halted,
    HostVirtual,
    Instruction,
    Machine,
    MachineError,
    Operand,
    VmxStatus,
    address_of,
    atomic_add_u32,
    atomic_compare_exchange_u64,
    atomic_exchange_u64,
    cli,
    copy_bytes,
    copy_words,
    cpuid,
    field16,
    field32,
    field64,
    fill_bytes,
    fill_words,
    frame_array,
    hlt,
    in8,
    in16,
    invept,
    lgdt,
    load_data_segments,
    natural,
    out8,
    out32,
    rdmsr,
    rdrand,
    rdtsc,
    read_cr4,
    read_gs_u64,
    read_rflags,
    sgdt,
    sti_hlt,
    u8,
    u16,
    u32,
    u64,
    vmcall,
    vmclear,
    vmptrld,
    vmread,
    vmwrite,
    vmxoff,
    vmxon,
    write_cr4,
    write_gs_base,
    wrmsr,
    xgetbv,
    xrstor64,
    xsave64,
    xsetbv,
)
from dsl.lang import intrinsics as table
from dsl.lang import types as t
from dsl.lang.annotations import resolve
from dsl.lang.instruction import GENERAL_REGISTERS, operands
from dsl.lang.memory import Event
from tests.compiler.test_templates import filled

FULL = {NAMES[width][NUMBERS[register][0]]: register for register in GENERAL_REGISTERS for width in (64, 32, 16, 8)}
ROWS: dict[str, Any] = {name: value for name, value in vars(table).items() if hasattr(value, "__instruction__")}


def width_of(kind: t.Type) -> int:
    """Bits in a register."""
    match kind:
        case t.BoolType():
            return 1
        case t.WordType(width=width) | t.EnumType(word=t.WordType(width=width)):
            return width
        case t.AddressType():
            return 64
    raise AssertionError(kind)


def result_widths(kind: t.Type) -> list[int]:
    if isinstance(kind, t.NoneType_):
        return []
    if isinstance(kind, t.RecordType):
        return [width_of(field) for field in kind.python.__record__.values()]
    return [width_of(kind)]


@pytest.mark.parametrize("name", ROWS)
def test_row_agrees_with_its_function(name: str) -> None:
    """Operands have the names, the order and the widths of the parameters and of the result."""
    function = ROWS[name]
    row: Instruction = function.__instruction__
    assert row.name == name
    annotations = dict(function.__annotations__)
    result = annotations.pop("return")
    assert [operand.name for operand in row.inputs] == list(annotations)
    if name in ("vmread", "vmwrite"):
        return  # typed by their Field: 64 bits each
    names = vars(table)
    assert [operand.width for operand in row.inputs] == [width_of(resolve(a, names)) for a in annotations.values()]
    assert [operand.width for operand in row.outputs] == result_widths(resolve(result, names))


@pytest.mark.parametrize("name", ROWS)
def test_row_lists_what_it_changes(name: str) -> None:
    """Every register that the decoded text writes, implicitly too, is an output or a clobber, and so are the flags."""
    row: Instruction = ROWS[name].__instruction__
    free = [operand.name for operand in row.inputs + row.outputs if operand.where == "any"]
    registers = dict(zip(free, ("r9", "r13", "r10"), strict=False))
    data = assemble_template(filled(row, registers)).data
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    engine.detail = True
    allowed = (
        {operand.where for operand in row.outputs}
        | {registers.get(o.name, "") for o in row.outputs}
        | set(row.clobbers)
    )
    for instruction in engine.disasm(data, 0):
        for number in instruction.regs_access()[1]:
            register = instruction.reg_name(number)
            full = "flags" if register in ("rflags", "eflags") else FULL.get(register)
            if instruction.mnemonic == "vmwrite" and full != "flags":
                continue  # Capstone counts the field as written; the manual has both operands read
            assert full is None or full in allowed, f"{instruction.mnemonic} writes {full}"


def test_wrong_rows_are_refused() -> None:
    """Operands that the text does not use, two in one register, unknown registers, a clobbered result."""
    with pytest.raises(ValueError, match="operands"):
        Instruction("x", "nop", inputs=(Operand("a", 64),))
    with pytest.raises(ValueError, match="operands"):
        Instruction("x", "mov {a}, {b}", inputs=(Operand("a", 64),))
    with pytest.raises(ValueError, match="operands"):
        Instruction("x", "nop", inputs=operands("a:64@rax b:64@rax"))
    with pytest.raises(ValueError, match="operands"):
        Instruction("x", "nop", inputs=operands("a:64@eax"))
    with pytest.raises(ValueError, match="clobbers"):
        Instruction("x", "nop", outputs=operands("a:64@rax"), clobbers=("rax",))
    with pytest.raises(ValueError, match="no operand"):
        operands("a:7")


@pytest.mark.parametrize(
    ("make", "encoding", "word"),
    [(field16, 0x0802, u16), (field64, 0x201A, u64), (field32, 0x4402, u32), (natural, 0x681E, u64)],
)
def test_fields_check_their_width(make: Callable[[int], Field[Any]], encoding: int, word: Any) -> None:
    """Each constructor takes encodings of its own width only, and whole fields only."""
    assert make(encoding).word is word
    for other in (field16, field64, field32, natural):
        if other is not make:
            with pytest.raises(ValueError, match="VMCS field"):
                typing.cast(Any, other)(encoding)
    with pytest.raises(ValueError, match="high half"):
        make(encoding | 1)
    for wrong in (encoding | 0x1000, encoding | 0x8000, -1):
        with pytest.raises(ValueError, match=r"no .* VMCS field"):
            make(wrong)


# Models


def test_cpuid_and_msrs(model: Machine) -> None:
    """Answers come from the machine's tables; what is not there is an error; MSR accesses are events."""
    model.cpuid[1, 0] = (1, 2, 3, 4)
    assert cpuid(u32(1), u32(0)).edx == u32(4)
    with pytest.raises(MachineError, match=r"0x7\.0x0"):
        cpuid(u32(7), u32(0))
    model.msrs[0x3A] = 5
    assert rdmsr(u32(0x3A)) == u64(5)
    wrmsr(u32(0x3A), u64(1 << 63))
    assert model.events == [Event("msr_read", 0x3A, 64, 5), Event("msr_write", 0x3A, 64, 1 << 63)]
    with pytest.raises(MachineError, match="RDMSR"):
        rdmsr(u32(0x3B))
    with pytest.raises(MachineError, match="WRMSR"):
        wrmsr(u32(0x3B), u64(0))


def test_ports(model: Machine) -> None:
    """A device or a latch answers; accesses are events; an empty port is an error."""

    class Echo:
        last = 0

        def read(self, port: int, width: int) -> int:
            return self.last + width

        def write(self, port: int, width: int, value: int) -> None:
            self.last = value

    model.ports[0x61] = 0x20
    model.ports[0x3F8] = Echo()
    out8(u16(0x3F8), u8(3))
    assert (in8(u16(0x3F8)), in16(u16(0x3F8)), in8(u16(0x61))) == (u8(11), u16(19), u8(0x20))
    out8(u16(0x61), u8(1))
    assert in8(u16(0x61)) == u8(1)
    out32(u16(0x61), u32(0x1FF))
    with pytest.raises(MachineError, match="for 8 bits"):
        in8(u16(0x61))
    with pytest.raises(MachineError, match="no device at port 0x60"):
        in8(u16(0x60))
    assert model.events[0] == Event("port_write", 0x3F8, 8, 3)
    assert model.events[1] == Event("port_read", 0x3F8, 8, 11)


def test_halting(model: Machine) -> None:
    """HLT wakes through the machine or is an exception; sti_hlt leaves interrupts on, cli off."""
    with pytest.raises(Halted):
        hlt()
    woken: list[Machine] = []
    model.wake = woken.append
    sti_hlt()
    assert woken == [model]
    assert read_rflags() & (1 << 9) != 0
    cli()
    assert read_rflags() & (1 << 9) == 0
    assert rdtsc() < rdtsc()


def test_system_registers(model: Machine) -> None:
    """Control registers, descriptor tables and segments keep what they are given, each CPU its own."""
    write_cr4(u64(0x2020))
    assert read_cr4() == u64(0x2020)
    pointer: Array[u8] = frame_array(u8, 10)
    pointer.store_u64(2, u64(0x1234))
    lgdt(address_of(pointer))
    back = frame_array(u8, 10)
    sgdt(address_of(back))
    assert back.equals(pointer)
    write_gs_base(HostVirtual(0x5000))
    model.memory.map(0x5000, 4096, (77).to_bytes(8, "little"))
    assert read_gs_u64(u64(0)) == u64(77)
    load_data_segments(u16(0x10))
    assert model.gs_base == 0


def test_extended_state(model: Machine) -> None:
    """XCR0 keeps bit 0; XSAVE and XRSTOR move the legacy area; a header beyond XCR0 is refused."""
    xsetbv(u32(0), u64(3))
    assert xgetbv(u32(0)) == u64(3)
    with pytest.raises(MachineError):
        xsetbv(u32(0), u64(2))
    model.cpu.extended = bytes(range(256)) * 2
    area = frame_array(u8, 576)
    xsave64(address_of(area), u64(7))
    assert (area[5], area.load_u64(512)) == (u8(5), u64(3))
    area[5] = u8(99)
    xrstor64(address_of(area), u64(3))
    assert model.cpu.extended[5] == 99
    area.store_u64(512, u64(4))
    with pytest.raises(MachineError, match="header"):
        xrstor64(address_of(area), u64(3))


def test_bulk_memory(model: Machine) -> None:
    """Copies go first to last, also onto themselves; fills repeat."""
    octets = frame_array(u8, 32)
    start = address_of(octets)
    fill_bytes(start, u8(1), u64(4))
    octets[0] = u8(7)
    copy_bytes(start + 1, start, u64(8))
    assert [int(octets[i]) for i in range(10)] == [7] * 9 + [0]
    fill_words(start + 16, u64(0x0102030405060708), u64(1))
    copy_words(start + 24, start + 16, u64(1))
    assert octets[31] == u8(1)


def test_atomics(model: Machine) -> None:
    """Each gives the previous value; compare-exchange writes only if it was the expected one; sums wrap."""
    words = frame_array(u64, 1)
    where = address_of(words)
    assert atomic_exchange_u64(where, u64(5)) == u64(0)
    assert atomic_compare_exchange_u64(where, u64(4), u64(9)) == u64(5)
    assert atomic_compare_exchange_u64(where, u64(5), u64(2**64 - 1)) == u64(5)
    assert atomic_add_u32(where, u32(2)) == u32(2**32 - 1)
    assert words[0] == u64(0xFFFFFFFF_00000001)


def test_random(model: Machine) -> None:
    """Numbers come from the machine's seed; a generator that is not ready says so."""
    assert rdrand().ok
    model.random = lambda: None
    assert not rdrand().ok


def test_vmx(model: Machine) -> None:
    """VMXON needs CR4.VMXE; fields belong to the current VMCS, in their own words; failures are failed checks."""
    pointer = frame_array(u64, 2)
    where = address_of(pointer)
    rip, reason = natural(0x681E), field32(0x4402)
    pointer[0] = u64(0x1000)
    with pytest.raises(MachineError, match="VMXE"):
        vmxon(where)
    write_cr4(u64(1 << 13))
    assert vmxon(where) is VmxStatus.OK
    with pytest.raises(CheckFailed):
        vmread(rip)
    assert vmptrld(where) is VmxStatus.FAIL_INVALID  # the VMXON region itself
    pointer[0] = u64(0x2000)
    assert (vmclear(where), vmptrld(where)) == (VmxStatus.OK, VmxStatus.OK)
    vmwrite(rip, u64(2**64 - 1))
    vmwrite(reason, u32(48))
    assert (vmread(rip), vmread(reason)) == (u64(2**64 - 1), u32(48))
    with pytest.raises(TypeError):
        vmwrite(reason, u64(1))  # type: ignore[misc]
    pointer[0] = u64(0x2001)
    assert vmptrld(where) is VmxStatus.FAIL_VALID
    model.cpu.vmx.read = {0x4402: 12}.get
    assert vmread(reason) == u32(12)
    with pytest.raises(CheckFailed):
        vmread(rip)
    assert invept(u64(2), where) is VmxStatus.OK
    vmxoff()
    with pytest.raises(MachineError):
        vmxoff()


def test_hypercalls(model: Machine) -> None:
    """VMCALL asks the machine's hypercall with five arguments."""
    with pytest.raises(MachineError, match="no hypercall"):
        vmcall(u64(1), u64(0), u64(0), u64(0), u64(0), u64(0))
    model.hypercall = lambda number, arguments: (number, sum(arguments))
    answer = vmcall(u64(3), u64(1), u64(2), u64(3), u64(4), u64(5))
    assert (answer.status, answer.result) == (u64(3), u64(15))

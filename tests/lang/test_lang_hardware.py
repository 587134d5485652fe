"""The hardware tables are complete, ordered, and agree with numbers written down a second time."""

from __future__ import annotations

import ast
import inspect
from types import ModuleType

import pytest

from dsl.hw import acpi, uart, vmx, x86
from dsl.lang import Field, size_of, u8, u16, u32, u64
from dsl.lang.bits import BitsClass


def test_fields_are_unique_and_in_order() -> None:
    """No two fields have one encoding; inside each table of the appendix numbers ascend."""
    encodings = [field.encoding for field in vmx.FIELDS.values()]
    assert len(set(encodings)) == len(encodings)
    assert len(encodings) > 170
    groups: dict[int, list[int]] = {}
    for encoding in encodings:
        groups.setdefault(encoding >> 10, []).append(encoding)
    for group in groups.values():
        assert group == sorted(group)
    assert encodings == sorted(encodings)  # the appendix goes by width, then kind, then number


@pytest.mark.parametrize(
    ("field", "encoding", "word"),
    [
        (vmx.VIRTUAL_PROCESSOR_ID, 0, u16),
        (vmx.GUEST_TR_SELECTOR, 0x80E, u16),
        (vmx.HOST_TR_SELECTOR, 0xC0C, u16),
        (vmx.MSR_BITMAP, 0x2004, u64),
        (vmx.EPT_POINTER, 0x201A, u64),
        (vmx.TSC_OFFSET, 0x2010, u64),
        (vmx.XSS_EXITING_BITMAP, 0x202C, u64),
        (vmx.GUEST_PHYSICAL_ADDRESS, 0x2400, u64),
        (vmx.VMCS_LINK_POINTER, 0x2800, u64),
        (vmx.GUEST_EFER, 0x2806, u64),
        (vmx.GUEST_PDPTE3, 0x2810, u64),
        (vmx.HOST_EFER, 0x2C02, u64),
        (vmx.EXCEPTION_BITMAP, 0x4004, u32),
        (vmx.ENTRY_CONTROLS, 0x4012, u32),
        (vmx.SECONDARY_CONTROLS, 0x401E, u32),
        (vmx.VM_INSTRUCTION_ERROR, 0x4400, u32),
        (vmx.EXIT_REASON, 0x4402, u32),
        (vmx.VM_EXIT_INSTRUCTION_LENGTH, 0x440C, u32),
        (vmx.GUEST_IDTR_LIMIT, 0x4812, u32),
        (vmx.GUEST_TR_ACCESS_RIGHTS, 0x4822, u32),
        (vmx.GUEST_ACTIVITY_STATE, 0x4826, u32),
        (vmx.GUEST_SYSENTER_CS, 0x482A, u32),
        (vmx.PREEMPTION_TIMER_VALUE, 0x482E, u32),
        (vmx.HOST_SYSENTER_CS, 0x4C00, u32),
        (vmx.CR4_READ_SHADOW, 0x6006, u64),
        (vmx.EXIT_QUALIFICATION, 0x6400, u64),
        (vmx.GUEST_LINEAR_ADDRESS, 0x640A, u64),
        (vmx.GUEST_IDTR_BASE, 0x6818, u64),
        (vmx.GUEST_RFLAGS, 0x6820, u64),
        (vmx.GUEST_SYSENTER_EIP, 0x6826, u64),
        (vmx.HOST_TR_BASE, 0x6C0A, u64),
        (vmx.HOST_RSP, 0x6C14, u64),
        (vmx.HOST_RIP, 0x6C16, u64),
    ],
)
def test_fields(field: Field[u64], encoding: int, word: type) -> None:
    """A sample of fields from every table."""
    assert (field.encoding, field.word) == (encoding, word)


@pytest.mark.parametrize(
    ("reason", "number"),
    [("CPUID", 10), ("HLT", 12), ("VMCALL", 18), ("VMXON", 27), ("IO_INSTRUCTION", 30), ("WRMSR", 32), ("INVALID_GUEST_STATE", 33),
     ("EPT_VIOLATION", 48), ("PREEMPTION_TIMER", 52), ("XSETBV", 55), ("RDSEED", 61), ("XRSTORS", 64), ("TPAUSE", 68), ("WRMSRLIST", 79)],
)  # fmt: skip
def test_exit_reasons(reason: str, number: int) -> None:
    """A sample of exit reasons."""
    assert vmx.ExitReason[reason].value == u32(number)


def test_layouts() -> None:
    """Sizes that the manuals fix, and values that are known as a whole."""
    assert (size_of(x86.TaskStateSegment), size_of(x86.DescriptorTablePointer)) == (104, 10)
    assert (size_of(acpi.RootPointer), size_of(acpi.TableHeader)) == (36, 36)
    code = x86.SegmentDescriptor(kind=u8(0xB), is_64_bit_code=True, is_32_bit=False)
    assert u64(code.raw()) == u64(0x00AF_9B00_0000_FFFF)
    pointer = vmx.EptPointer(memory_type=u8(6), walk_length=u8(3), page_frame=u64(0x1234))
    assert u64(pointer.raw()) == u64(0x123401E)
    event = vmx.InterruptionInformation(
        vector=u8(14), kind=vmx.InterruptionType.HARDWARE_EXCEPTION, has_error_code=True
    )
    assert u32(event.raw()) == u32(0x80000B0E)
    assert vmx.IoAccess.from_raw(u64(0x03F8_0009)).port == u16(0x3F8)
    assert uart.LineStatus.from_raw(u8(0x60)).transmitter_empty
    # What firmware's flat 32-bit access rights look like, from the reset state of a processor: G, D, P, S, read/write, accessed
    rights = vmx.SegmentAccessRights.from_raw(u32(0xC093))
    assert (rights.granular, rights.is_32_bit, rights.present, rights.kind) == (True, True, True, u8(3))


@pytest.mark.parametrize("module", [x86, vmx, uart, acpi], ids=lambda module: module.__name__)
def test_modules_are_data(module: ModuleType) -> None:
    """No function is defined; constants are Final; every class is documented."""
    for statement in ast.parse(inspect.getsource(module)).body:
        assert not isinstance(statement, ast.FunctionDef | ast.Assign), ast.unparse(statement)
        if isinstance(statement, ast.ClassDef):
            assert ast.get_docstring(statement)
        if isinstance(statement, ast.AnnAssign):
            assert ast.unparse(statement.annotation) == "Final"


def test_bits_have_fields() -> None:
    """Every Bits class of the tables has at least one field, so that none is declared in vain."""
    classes = [value for module in (x86, vmx, uart) for value in vars(module).values() if isinstance(value, BitsClass)]
    assert len(classes) > 20
    assert all(cls.__layout__.fields for cls in classes if cls.__name__ != "Bits")

"""The model's own VMX instructions: success, VMfailInvalid, VMfailValid and the error numbers (SDM Vol. 3C, 31.2 to 31.4)."""

from __future__ import annotations

import struct

import pytest

from boot.handoff import MONITOR_BASE
from tests.model.image import physical_memory
from tests.model.machine import ModelFailure
from tests.model.processor import IA32_FEATURE_CONTROL, REVISION, Processor
from tests.model.sites import find_sites
from tests.model.vmx_operation import VmxMachine
from tests.vmm.images import assemble

pytestmark = pytest.mark.t1
PAGE = 4096
TEXT = MONITOR_BASE + 64
DATA = MONITOR_BASE + PAGE
RESULTS = DATA + 512
VMXON, FIRST, SECOND, WRONG_REVISION = 0x90_0000, 0x90_1000, 0x90_2000, 0x90_3000
POINTERS = {
    "vmxon": VMXON,
    "first": FIRST,
    "second": SECOND,
    "wrong": WRONG_REVISION,
    "odd": FIRST + 8,
    "far": 1 << 45,
    "zero": 0,
}
GOOD, INVALID, VALID = 0, 1, 1 << 6
ERROR_FIELD = 0x4400

# instruction, {name} being a pointer's place; what the flags say; the error number (None: no current VMCS)
STEPS: list[tuple[str, int, int | None]] = [
    ("vmxon {odd}", INVALID, None),
    ("vmxon {wrong}", INVALID, None),
    ("vmxon {vmxon}", GOOD, None),
    ("vmread rax, rbx", INVALID, None),
    ("vmlaunch", INVALID, None),
    ("vmclear {odd}", INVALID, None),
    ("vmclear {first}", GOOD, None),
    ("vmclear {second}", GOOD, None),
    ("vmptrld {first}", GOOD, 0),
    ("vmxon {vmxon}", VALID, 15),
    ("vmclear {odd}", VALID, 2),
    ("vmclear {far}", VALID, 2),
    ("vmclear {vmxon}", VALID, 3),
    ("vmptrld {odd}", VALID, 9),
    ("vmptrld {vmxon}", VALID, 10),
    ("vmptrld {wrong}", VALID, 11),
    ("vmresume", VALID, 5),
    ("mov rbx, 0x2000; mov rax, 0x12345; vmwrite rbx, rax", GOOD, 5),
    ("mov rbx, 0x5000; vmread rax, rbx", VALID, 12),
    ("mov rbx, 0x5000; vmwrite rbx, rax", VALID, 12),
    ("mov rbx, 0x4402; vmwrite rbx, rax", VALID, 13),
    ("vmlaunch", VALID, 7),  # empty: controls come first
    ("mov rbx, 0; invept rbx, {zero}", VALID, 28),
    ("mov rbx, 2; invept rbx, {zero}", GOOD, 28),
    ("mov rbx, 4; invvpid rbx, {zero}", VALID, 28),
    ("mov rbx, 2; invvpid rbx, {zero}", GOOD, 28),
    ("vmptrst {results}", GOOD, 28),
    ("vmclear {first}", GOOD, None),
    ("vmptrld {second}", GOOD, 0),
    ("vmxoff", GOOD, None),
]


def program(steps: list[tuple[str, int, int | None]]) -> bytes:
    """A flat program that runs the steps and writes flags and error after each."""
    lines = ["mov rax, cr4; or rax, 0x2000; mov cr4, rax"]
    places = {name: f"[r9 + {index * 8}]" for index, name in enumerate(POINTERS)} | {"results": "[r9 + 256]"}
    lines.append(f"movabs r9, {DATA:#x}; movabs r8, {RESULTS:#x}")
    for text, _, error in steps:
        for piece in text.format(**places).split(";"):
            lines.append(piece.strip())
        lines.append("pushfq; pop rcx; mov [r8], rcx")
        if error is not None:
            lines.append(f"mov rbx, {ERROR_FIELD:#x}; vmread rcx, rbx; mov [r8 + 8], rcx")
        lines.append("add r8, 16")
    lines.append("cli; hlt")
    code = b"".join(assemble(line, 64, TEXT) for line in lines)
    header = struct.pack("<8sIIIIIIQ", b"TRNFLAT1", 64, PAGE, PAGE, 2 * PAGE, 2 * PAGE, 0, MONITOR_BASE).ljust(
        64, b"\0"
    )
    first_page = (header + code).ljust(PAGE, b"\xcc")
    return first_page + b"".join(pointer.to_bytes(8, "little") for pointer in POINTERS.values()).ljust(PAGE, b"\0")


def machine_of(steps: list[tuple[str, int, int | None]], feature_control: int = 5) -> VmxMachine:
    """A machine about to run the steps."""
    image = program(steps)
    memory = physical_memory(image, [])
    for region in (VMXON, FIRST, SECOND):
        memory[region : region + 4] = REVISION.to_bytes(4, "little")
    memory[WRONG_REVISION : WRONG_REVISION + 4] = (REVISION + 1).to_bytes(4, "little")
    processor = Processor().with_msrs({IA32_FEATURE_CONTROL: feature_control})
    machine = VmxMachine(memory, processor, find_sites(image, MONITOR_BASE), TEXT)
    machine.expects_violation = True
    machine["rsp"] = RESULTS + 3000
    return machine


def test_flags_and_error_numbers() -> None:
    """Each step in turn."""
    machine = machine_of(STEPS)
    machine.run()
    for index, (text, flags, error) in enumerate(STEPS):
        found = machine.read_word(RESULTS + index * 16)
        assert found & 0x8D5 == flags, f"{index}: {text}"
        if error is not None:
            assert machine.read_word(RESULTS + index * 16 + 8) == error, f"{index}: {text}"
    assert machine.read_word(DATA + 256) == FIRST
    assert machine.invalidations == [("invept", 2), ("invvpid", 2)]
    assert machine.refused_accesses == [("vmread", 0x5000), ("vmwrite", 0x5000), ("vmwrite", 0x4402)]


@pytest.mark.parametrize("feature_control", [0, 1, 3, 4])
def test_vmxon_needs_an_open_lock(feature_control: int) -> None:
    """Without lock and VMX outside SMX, VMXON is #GP; here there is no IDT, so that ends the machine."""
    with pytest.raises(ModelFailure, match="vector 13 "):
        machine_of([("vmxon {vmxon}", GOOD, None)], feature_control).run()


def test_vmx_instructions_outside_vmx_operation_are_invalid_opcodes() -> None:
    """VMREAD before VMXON is #UD."""
    with pytest.raises(ModelFailure, match="vector 6 "):
        machine_of([("vmread rax, rbx", GOOD, None)]).run()


def test_a_region_that_was_never_cleared_is_refused() -> None:
    """VMPTRLD of a region without VMCLEAR is what the manual leaves open: a failure here."""
    with pytest.raises(ModelFailure, match="never cleared"):
        machine_of([("vmxon {vmxon}", GOOD, None), ("vmptrld {first}", GOOD, None)]).run()

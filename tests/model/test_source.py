"""The emitted monitor does, step by step and to the last byte, what its source does under CPython: boxes that do what they like."""

from __future__ import annotations

from itertools import cycle, islice

import pytest

from dsl.hw import vmx
from tests.model import board, vmx_operation
from tests.model.calls import Calls
from tests.model.machine import TIME_OVER
from tests.model.processor import Processor
from tests.model.random_boxes import PARTS
from tests.model.random_source import MEMORY, Source, rings
from tests.model.reference import run_alike
from tests.model.start import machine_for
from tests.model.test_processors import processor, with_states
from tests.model.vmx_operation import Exit, Guest, Script
from tests.vmm.images import TestBox
from vmm.descriptor import StartMode

pytestmark = pytest.mark.t1
SEEDS = 2
LABEL = "the-longest-label-that-there-is"  # no byte of the 31 is zero
STEPS_OF_EACH = 45
STEPS_OF_CALLS = 100


def mode_of(part: str) -> StartMode:
    """How the box of a script starts."""
    return StartMode.PROTECTED if part == "protected_memory" else StartMode.LONG


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("part", PARTS)
def test_code_and_source(part: str, seed: int) -> None:
    """At every entry the same VMCS, registers, devices and time; at the end the same memory and objects of the monitor's."""

    def script(guest: Guest) -> Script:
        yield from PARTS[part](guest, Source(f"{part} {seed}"))

    run_alike(f"{part} {seed}", TestBox(LABEL, b"\xf4", mode_of(part), MEMORY), script)


@pytest.mark.parametrize("part", PARTS)
def test_functions_keep_what_their_callers_keep(part: str) -> None:
    """The same when each function is made to rely on its arguments alone, and its callers on what it gives them (calls.py)."""

    def script(guest: Guest) -> Script:
        yield from PARTS[part](guest, Source(f"{part} 0"))

    run_alike(f"{part} 0", TestBox(LABEL, b"\xf4", mode_of(part), MEMORY), script, calls_of=STEPS_OF_CALLS)


@pytest.mark.parametrize("from_start", [False, True])
def test_the_engine_s_entry_and_exit_keep_it_too(from_start: bool) -> None:
    """The same of a few exits of each kind, hot and not: from the scheduler to the stub and back, or from the monitor's main function."""
    source = Source("entry")

    def script(guest: Guest) -> Script:
        if not from_start:
            Calls(machine)
        for _ in range(3):
            before = source.registers(rax=1)
            yield Exit(vmx.ExitReason.INVD, length=2, registers=before)
            assert guest.registers == before
            yield Exit(vmx.ExitReason.CPUID, length=2, registers=before)
            assert [name for name in before if guest[name] != before[name]] == ["rax", "rcx", "rdx", "rbx"]
            yield source.io(0x71, True)
            assert all(
                guest[name] == value for name, value in before.items() if name not in ("rax", "rcx", "rdx", "rbx")
            )
        others = (
            Exit(vmx.ExitReason.VMCALL, length=3, registers=source.registers(rax=99)),
            Exit(vmx.ExitReason.VMCALL, length=3, registers=source.registers(rax=5)),
            Exit(vmx.ExitReason.WRMSR, length=2, registers=source.registers(rcx=0x3A)),
            Exit(vmx.ExitReason.WRMSR, length=2, registers=source.registers(rcx=0x1B)),
            Exit(vmx.ExitReason.WRMSR, length=2, registers=source.registers(rcx=0xC000_0080)),
            Exit(vmx.ExitReason.RDMSR, length=2, registers=source.registers(rcx=0x17)),
            Exit(vmx.ExitReason.WRMSR, length=2, registers=source.registers(rcx=0x8B)),
            Exit(vmx.ExitReason.WRMSR, length=2, registers=source.registers(rcx=0x10)),
            Exit(vmx.ExitReason.XSETBV, length=3, registers=source.registers(rcx=0, rdx=0, rax=3)),
            Exit(vmx.ExitReason.CONTROL_REGISTER_ACCESS, 8 | 1 << 4 | 9 << 8, 4, registers=source.registers()),
            Exit(vmx.ExitReason.EXCEPTION_OR_NMI, 0x4000, 1, interruption=0x8000_0301),
            Exit(vmx.ExitReason.EPT_VIOLATION, 0x182, registers=source.registers(), guest_physical=0x3000_0000),
            Exit(vmx.ExitReason.VMCALL, length=3, registers=source.registers(rax=4), fields=rings(3)),
        )
        yield from others
        machine.stop(TIME_OVER)

    machine = machine_for([TestBox("a", b"\xf4", StartMode.LONG)], [script])
    if from_start:
        Calls(machine)
    machine.run()
    assert not machine.exceptions, machine.serial_text()
    assert machine.ending == TIME_OVER


NO_MACHINE_CHECK, SPEC_CTRL = 1 << 7, 1 << 26
PROCESSORS = {
    "as usual": Processor(),
    "random leaves": processor(11, False),
    "all ones": processor(12, True, gone=vmx.SECONDARY_ENABLE_RDTSCP),
    "few leaves": processor(13, False, 0x8000_0001, gone=vmx.SECONDARY_ENABLE_INVPCID),
    "one leaf too many": processor(14, True, 0x8000_0009, gone=vmx.SECONDARY_ENABLE_INVPCID),
    "without speculation control": Processor().without_features(7, edx=SPEC_CTRL),
    "without machine checks": Processor().without_features(1, edx=NO_MACHINE_CHECK),
    "AVX-512": with_states(0xE7, 2688),
    "AVX-512 that is too large": with_states(0xE7, 4097),
    "half of AVX-512": with_states(0x67, 2000),
}


@pytest.mark.parametrize(("name", "gigahertz"), list(zip(PROCESSORS, cycle((1, 6)), strict=False)))
def test_what_is_prepared_for_a_processor(name: str, gigahertz: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the monitor makes of a processor at its start, and some exits that follow from it. At 6 GHz the TSC needs more than 32 bits."""
    monkeypatch.setattr(board, "TSC_HZ", gigahertz * 1_000_000_000)
    monkeypatch.setattr(vmx_operation, "LONGEST_SLICE", gigahertz * vmx_operation.LONGEST_SLICE)

    def script(guest: Guest) -> Script:
        for part in ("cpuid", "msr", "pit", *(("control_registers",) if gigahertz == 1 else ())):
            yield from islice(PARTS[part](guest, Source(f"{part} {name}")), STEPS_OF_EACH)

    mode = StartMode.LONG if gigahertz == 1 else StartMode.REAL
    box = TestBox(LABEL, b"\xf4", mode, flags=gigahertz & 1, weight=gigahertz)
    run_alike(f"{name} {gigahertz}", box, script, PROCESSORS[name])

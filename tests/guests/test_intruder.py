"""The intruder finds what there is to find: on a bare machine, where nobody hides anything; its bytes are what they are called."""

from __future__ import annotations

import random
import re
from pathlib import Path

import capstone
import pytest

from dsl.lang import u64
from dsl.lang.model import Machine
from guests.canaries import CANARY, DEBUG_COUNT, XMM_COUNT
from guests.intruder import attempt
from guests.intruder.attempt import NO_FAULT, PROBE
from guests.intruder.hypercalls import (
    BUFFER,
    GENERATOR,
    LOW_FREE,
    harmless_address,
    hypercall,
    try_hypercalls,
)
from guests.intruder.registers import is_secret_msr
from guests.intruder.report import TOTALS
from guests.intruder.search import is_canary, prepare_search
from guests.intruder.snippets import FORBIDDEN, OTHERS, ROWS, SNIPPET_SIZE, SNIPPETS, TOOLS
from tests.guests.bare import run_bare
from tests.guests.bare_program import start
from vmm.abi import Hypercall, Status


@pytest.mark.t0
@pytest.mark.parametrize(("name", "code"), ROWS)
def test_snippets_are_what_they_are_called(name: str, code: str) -> None:
    """Capstone reads each snippet as the instruction of its name, and then RET."""
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    with Machine():
        row = ROWS.index((name, code)) * SNIPPET_SIZE
        found = list(decoder.disasm(bytes(int(SNIPPETS[u64(row + index)]) for index in range(SNIPPET_SIZE)), 0))
    spelt = re.sub(r"\b\w+ ptr ", "", f"{found[0].mnemonic} {found[0].op_str}")
    expected = re.sub(r"\b\w+ ptr ", "", name)
    assert spelt.split()[0] == expected.split()[0]
    assert all(operand in spelt for operand in re.findall(r"\[rdi\]|cr\d", expected))
    assert found[0].size == len(code) // 2
    assert found[1].mnemonic == "ret"


@pytest.mark.t0
def test_rows_are_distinct_and_every_kind_is_there() -> None:
    """No instruction is tried twice; the VMX and SMX lists of the manual are complete."""
    assert len(set(ROWS)) == len(ROWS) >= len(FORBIDDEN) + len(OTHERS) + len(TOOLS)
    names = {name.split()[0] for name, _ in FORBIDDEN}
    assert {"vmxon", "vmxoff", "vmclear", "vmptrld", "vmptrst", "vmread", "vmwrite", "vmlaunch", "vmresume"} <= names
    assert {"invept", "invvpid", "vmfunc", "getsec"} <= names


@pytest.mark.t0
def test_canaries_are_recognised() -> None:
    """Every canary number is found, and no neighbour of the pattern is."""
    with Machine():
        prepare_search()
        assert all(is_canary(u64(CANARY | number)) for number in range(256))
        assert not any(is_canary(u64(CANARY ^ 1 << bit)) for bit in range(8, 64))


@pytest.mark.t0
def test_secret_msrs() -> None:
    """The lock and the VMX capabilities are secret, their neighbours are not."""
    secret = [number for number in range(0x2000) if is_secret_msr(u64(number))]
    assert secret == [0x3A, *range(0x480, 0x494)]


class Processor:
    """What stands for the processor and the monitor under CPython: VMCALL alone, answered by `answer`."""

    def __init__(self, status: Status | int, result: int) -> None:
        """Give every call but VERSION this status."""
        self.status, self.result = status, result
        self.calls: list[tuple[int, int, int]] = []

    def __call__(self) -> int:
        """Carry out the snippet."""
        number = int(PROBE.rax)
        self.calls.append((number, int(PROBE.rdi), int(PROBE.rsi)))
        good = number == int(Hypercall.VERSION.value)
        status = self.status if isinstance(self.status, int) else int(self.status.value)
        PROBE.rax = u64(0 if good else status)
        PROBE.rdi = u64(self.result if good else 0)
        return NO_FAULT


@pytest.fixture
def serial() -> Machine:
    """A machine whose serial port takes everything."""
    machine = Machine()
    machine.ports.update({0x3F8 + offset: 0 for offset in range(8)})
    machine.ports[0x3FD] = 0x60
    return machine


def run_calls(machine: Machine, processor: Processor) -> tuple[int, list[tuple[int, int, int]]]:
    """Let the intruder make its hypercalls; return the breaches that it counted, and the calls."""
    attempt.models.append(processor)
    try:
        with machine:
            machine.cpu.time = random.Random(1).getrandbits(60)
            try_hypercalls(u64(4 << 20))
            return int(TOTALS.breaches), processor.calls
    finally:
        attempt.models.pop()


@pytest.mark.t0
def test_hypercalls_are_near_boundaries_and_spare_ourselves(serial: Machine) -> None:
    """4096 calls and the checks between them: known and unknown numbers, sizes at their limits, no address in what we live on."""
    breaches, calls = run_calls(serial, Processor(Status.BAD_ADDRESS, 1))
    assert breaches == 0
    assert {0, 1, 2, 3, 4, 5, 6, 7} <= {number for number, _, _ in calls}
    assert any(number > 1 << 60 for number, _, _ in calls)
    sizes = {size for _, _, size in calls}
    assert {0, 1, 255, 256, 257, 1 << 63} <= sizes
    with serial:
        low = {int(harmless_address(u64(value))) for value in range(LOW_FREE, 4 << 20, 509)}
        buffer = int(BUFFER._address)
        assert int(GENERATOR.memory_size) == 4 << 20
    assert low <= set(range(buffer, buffer + 256))


@pytest.mark.t0
@pytest.mark.parametrize("processor", [Processor(7, 1), Processor(Status.OK, 2)])
def test_wrong_answers_are_breaches(serial: Machine, processor: Processor) -> None:
    """A status that does not exist, and a VERSION that changed, count."""
    breaches, _ = run_calls(serial, processor)
    assert breaches >= (64 if processor.status == Status.OK else 1000)


@pytest.mark.t0
def test_a_machine_without_a_monitor_refuses(serial: Machine) -> None:
    """VMCALL as an invalid opcode is a refusal."""
    attempt.models.append(lambda: 6)
    try:
        with serial:
            assert not hypercall(u64(0), u64(0), u64(0), u64(0), u64(0))
    finally:
        attempt.models.pop()


def numbers(lines: list[str], what: str) -> list[int]:
    """Return the numbers of the line that begins so."""
    (line,) = [line for line in lines if line.startswith(f"intruder: {what} ")]
    return [int(number) for number in re.findall(r"\b\d+\b", line[len(f"intruder: {what}") :])]


@pytest.mark.t2
def test_on_a_bare_machine_everything_is_found(tmp_path: Path) -> None:
    """In long mode on Bochs without a monitor: VMX's bit and MSRs answer, foreign memory is read, written and searched, and every
    canary that the witness plants is found in its register; before it plants them, none is.
    """
    lines = run_bare(start, tmp_path)
    assert lines[-2:] == ["intruder done", ""]
    assert numbers(lines, "vmx and smx instructions") == [33, 33]
    assert "intruder: BREACH CR4 bit at 0x000000000000000d" in lines
    assert "intruder: BREACH MSR at 0x0000000000000480" in lines
    assert "intruder: BREACH guest-physical read at 0x0000000000400000" in lines
    assert numbers(lines, "hypercalls") == [4096, 4096]
    assert numbers(lines, "canaries before planting") == [0]
    assert "intruder: CANARY in memory 0x0000000001401238" in lines
    assert numbers(lines, "canaries in foreign memory") == [1]
    assert numbers(lines, "foreign writes kept") == [1]
    assert numbers(lines, "witness canaries damaged") == [0]
    assert numbers(lines, "canaries in registers") == [2 * XMM_COUNT + DEBUG_COUNT + 3]
    assert numbers(lines, "canaries in all")[0] >= 2 * XMM_COUNT + DEBUG_COUNT + 3 + 512

"""The fixtures run machine functions in their worlds, and a failing test shows the instructions that came last."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from dsl.hw.vmx import EXIT_REASON, GUEST_RIP, VM_INSTRUCTION_ERROR
from dsl.lang import Array, asm, machine, u8, u32, u64, upto
from dsl.lang.intrinsics import rdmsr, vmread, vmwrite
from tests.model.machine import ModelFailure
from tests.model.world import Vmx
from tests.worlds import FailedCheck, Native, Unicorn

pytestmark = pytest.mark.t1
ROOT = Path(__file__).resolve().parents[1]
FAILING = '''
from dsl.hw.vmx import GUEST_RIP
from dsl.lang import machine, u32, u64
from dsl.lang.intrinsics import rdmsr, vmread, vmwrite


@machine
def twice(a: u64) -> u64:
    """Doubles it, wrongly."""
    if a > 100:
        return a + 7
    return a + 3


def test_twice(emu):
    assert emu(twice, 4) == 8


def test_native_alone(native):
    assert native(twice, 4) == 8


@machine
def skip(length: u64) -> u64:
    """Moves a guest on, too far."""
    vmwrite(GUEST_RIP, u64(vmread(GUEST_RIP)) + length + 1)
    return u64(rdmsr(u32(0x3A)))


def test_skip(vmx):
    vmx.vmcs[GUEST_RIP] = 0x1000
    assert vmx(skip, 2) == 0
    assert vmx.vmcs[GUEST_RIP] == 0x1002


def test_nothing_was_called(emu, native, vmx):
    assert False
'''


@machine
def total(data: Array[u8], weight: u64) -> u64:
    """The weighted sum of bytes, written back as well."""
    sum_ = u64(0)
    for index in upto(data.length):
        sum_ += u64(data[index]) * weight
        data[index] = u8(0)
    return sum_


@machine
def element(data: Array[u8], index: u64) -> u8:
    """One byte, checked."""
    return data[index]


def test_both_worlds_give_one_result(emu: Unicorn, native: Native) -> None:
    for world in (emu, native):
        data = bytearray(b"abc")
        assert world(total, data, 3) == 3 * sum(b"abc")
        assert data == bytes(3)


def test_a_failed_check_is_an_error_with_its_place(emu: Unicorn, native: Native) -> None:
    assert emu(element, b"abc", 2) == native(element, b"abc", 2) == ord("c")
    with pytest.raises(FailedCheck, match="a check failed"):
        native(element, b"abc", 3)
    line = Path(__file__).read_text().splitlines().index("    return data[index]") + 1
    with pytest.raises(FailedCheck, match=rf"tests/test_plugin\.py:{line}      return data\[index\]\n(?s:.*)ud2$"):
        emu(element, b"abc", 3)


def test_instructions_are_counted(emu: Unicorn) -> None:
    emu(total, bytearray(10), 1)
    ten = emu.instructions
    emu(total, bytearray(110), 1)
    assert (emu.instructions - ten) % 100 == 0
    assert 300 <= emu.instructions - ten <= 1500


def test_a_failing_test_shows_the_last_instructions(tmp_path: Path) -> None:
    """With their source lines; in a run of its own, which also shows that the plugin works outside this tree's tests."""
    (tmp_path / "test_failing.py").write_text(FAILING)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.plugin", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    reports = re.split(r"^_+ (test_\w+) _+$", done.stdout, flags=re.MULTILINE)
    shown = {
        name: text.partition("last instructions")[2] for name, text in zip(reports[1::2], reports[2::2], strict=True)
    }
    lines = FAILING.splitlines()
    place = {
        text: f"test_failing.py:{lines.index(f'    {text}') + 1}      {text}\n"
        for text in ("if a > 100:", "return a + 3")
    }
    for name, heading in (("test_twice", "in the emulated machine"), ("test_native_alone", "once more in Unicorn")):
        assert heading in shown[name], done.stdout
        assert shown[name].index(place["if a > 100:"]) < shown[name].index(place["return a + 3"])
        assert (
            f"test_failing.py:{lines.index('        return a + 7') + 1} " not in shown[name]
        )  # the line that did not run
        assert "add" in shown[name] or "lea" in shown[name]
    assert "on the VMX model" in shown["test_skip"]
    executed = re.findall(r"^ +[0-9a-f]+  (vmread|vmwrite|rdmsr|ret)\b", shown["test_skip"], re.MULTILINE)
    assert executed == ["vmread", "vmwrite", "rdmsr", "ret"]
    assert shown["test_nothing_was_called"] == ""


@machine
def answer_exit(length: u64) -> u64:
    """As an exit handler does: the reason, and the guest moved past its instruction."""
    vmwrite(GUEST_RIP, u64(vmread(GUEST_RIP)) + length)
    return u64(vmread(EXIT_REASON))


@machine
def read_msr(number: u32) -> u64:
    """RDMSR."""
    return rdmsr(number)


@machine(naked=True)
def launch() -> None:
    """VMLAUNCH, and on where it fails."""
    asm("vmlaunch\n ret")


@machine
def enter() -> u64:
    """The instruction error of an entry that fails."""
    launch()
    return u64(vmread(VM_INSTRUCTION_ERROR))


def test_the_model_has_a_current_vmcs_that_stays(vmx: Vmx) -> None:
    """What a test puts there is read, what the function writes is seen, and the next call finds it."""
    vmx.vmcs[EXIT_REASON], vmx.vmcs[GUEST_RIP] = 10, 0x1000
    assert vmx(answer_exit, 2) == vmx(answer_exit, 3) == 10
    assert vmx.vmcs[GUEST_RIP] == 0x1005
    data = bytearray(b"abc")
    assert vmx(total, data, 3) == 3 * sum(b"abc")
    assert data == bytes(3)


def test_the_model_has_the_msrs_of_its_processor(vmx: Vmx) -> None:
    """One that does not exist is #GP, without an IDT the end; a failed check is told apart."""
    vmx.processor = vmx.processor.with_msrs({0x3A: 5, 0x1234: None})
    assert vmx(read_msr, 0x3A) == 5
    with pytest.raises(ModelFailure, match=r"vector 13, without an IDT\n(?s:.*)rdmsr"):
        vmx(read_msr, 0x1234)
    with pytest.raises(FailedCheck, match=r"a check failed at tests/test_plugin\.py:\d+\n(?s:.*)ud2"):
        vmx(element, b"abc", 3)


def test_the_model_makes_the_manual_s_checks(vmx: Vmx) -> None:
    """An entry with an empty VMCS breaks rules, which are named."""
    with pytest.raises(ModelFailure, match="VM entry: "):
        vmx(enter)


@pytest.mark.t1
@pytest.mark.parametrize("world", ["emu", "native", "vmx"])
def test_wrong_arguments_are_named(world: str, request: pytest.FixtureRequest) -> None:
    """Too few, a number for an array, an array for a number: never a call with what happens to fit."""
    call = request.getfixturevalue(world)
    with pytest.raises(TypeError, match="element: expected 2 arguments, found 1"):
        call(element, b"abc")
    with pytest.raises(TypeError, match="element: argument 1: expected bytes or a bytearray, found 3"):
        call(element, 3, 3)
    with pytest.raises(TypeError, match="element: argument 2: expected an int or a bool, found b'abc'"):
        call(element, b"abc", b"abc")

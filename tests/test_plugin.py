"""The fixtures run machine functions in their worlds, and a failing test shows the instructions that came last."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dsl.lang import Array, machine, u8, u64, upto
from tests.worlds import FailedCheck, Native, Unicorn

pytestmark = pytest.mark.t1
ROOT = Path(__file__).resolve().parents[1]
FAILING = '''
from dsl.lang import machine, u64


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
    with pytest.raises(FailedCheck, match=rf"tests/test_plugin\.py:{line}\n(?s:.*)ud2$"):
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
    emulated, _, plain = done.stdout.partition("test_native_alone")
    shown = emulated.partition("last instructions in the emulated machine")[2]
    assert "test_failing.py:8\n" in shown, done.stdout  # the comparison
    assert "test_failing.py:10\n" in shown  # the line that ran
    assert "test_failing.py:9\n" not in shown  # the line that did not
    assert "add" in shown or "lea" in shown
    assert shown.index(":8\n") < shown.index(":10\n")
    assert "last instructions" not in plain

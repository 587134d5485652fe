"""A check of the monitor that fails stops it with file and line, from which the build's listing gives the function; in Bochs."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest

from dsl.compiler.pipeline import Program
from pipeline import console, explain
from tests.boot.machine import BOCHS, boot
from tests.vmm import images

pytestmark = [pytest.mark.t2, pytest.mark.skipif(BOCHS is None, reason="Bochs is not installed")]
JUMP_SIZE = 5


def with_a_failing_check(program: Program, prefix: str) -> tuple[Program, str, str]:
    """The program with a jump at the start of a function to the ud2 of one of its checks; the function; the check's place."""
    for offset, trap in program.linked.checks:
        address = program.base + offset
        for name, (start, size, kind) in program.symbols.items():
            if kind == "function" and name.startswith(prefix) and start <= address < start + size:
                image = bytearray(program.image)
                place = start - program.base
                jump = b"\xe9" + (offset - place - JUMP_SIZE).to_bytes(4, "little", signed=True)
                image[place : place + JUMP_SIZE] = jump
                broken = copy.copy(program)
                broken.linked = copy.copy(program.linked)
                broken.linked.image = bytes(image)
                return broken, name, f"{trap.file}:{trap.line}"
    raise AssertionError(f"no function {prefix}... has a check")


def test_a_failed_check_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File and line on the serial port; the function from the address beside them."""
    program, function, place = with_a_failing_check(images.monitor(), "vmm.scheduler.")
    monkeypatch.setattr(images, "monitor", lambda: program)
    box = images.TestBox("a", images.assemble("hlt", 16))
    outcome = boot(tmp_path, images.disk_with(box), until=" rsp 0x")
    transcript = console.Transcript()
    transcript.feed(outcome.serial.encode() + b"\n")
    refusal = transcript.refusal()
    assert refusal is not None, outcome.serial
    assert refusal.startswith(f"stopped: a check failed at {place} rip 0x")
    (tmp_path / "monitor.lst").write_text(program.listing())
    (tmp_path / "monitor.map").write_text(program.map())
    said = explain.where(refusal, tmp_path)
    assert re.fullmatch(rf"0x[0-9a-f]+ is {re.escape(function)} \+ 0x[0-9a-f]+, {re.escape(place)}", said)

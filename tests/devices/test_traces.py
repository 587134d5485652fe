"""Our devices answer the port scripts as the reference PC did (record.py made the recordings), but for the masks in scripts.py."""

from __future__ import annotations

import json
from calendar import timegm
from pathlib import Path
from time import strptime
from typing import Any

import pytest

from dsl.lang import u8, u16, u32, u64
from dsl.lang.model import Machine
from tests.devices.record import NO_INTERRUPT, START, TRACES
from tests.devices.scripts import SCRIPTS, Step
from vmm.descriptor import DEVICES_KNOWN
from vmm.devices.board import (
    Board,
    board_acknowledge,
    board_advance,
    board_interrupt_pending,
    board_port_read,
    board_port_write,
    board_reset,
    board_set_clock,
)

STEP_NS = 40  # what a step takes on our side; the reference needs about that many instructions, one a nanosecond

pytestmark = pytest.mark.t0


def obey(board: Board, step: Step, now: int) -> int | None:
    """Obey one step and return its answer, if it asks for one."""
    time = u64(now)
    board_advance(board, time)
    kind = step[0]
    if kind == "inta":
        return int(board_acknowledge(board)) if board_interrupt_pending(board) else NO_INTERRUPT
    if kind == "wait":
        return None
    width = u64(4 if kind.endswith("4") else 1)
    port = u16(step[1])
    if kind.startswith("in"):
        return int(board_port_read(board, port, width, time))
    board_port_write(board, port, width, u32(step[2]), time)
    return None


def replay(steps: list[Step]) -> list[int | None]:
    """Run a script on a board and return its answers."""
    with Machine():
        board = Board()
        board_set_clock(board, u64(timegm(strptime(START, "%Y-%m-%dT%H:%M:%S"))))
        board_reset(board, u64(DEVICES_KNOWN), u64(0))
        now, answers = 0, []
        for step in steps:
            now += STEP_NS + (step[1] * 1000 if step[0] == "wait" else 0)
            answers.append(obey(board, step, now))
            # the ring is the wire: the reference's other end takes every byte at once
            board.output.taken = board.output.written
        return answers


def compared(step: Step, answer: int | None) -> int | None:
    """Return the bits of an answer that both must share."""
    mask = step[2] if step[0] == "in" and len(step) == 3 else NO_INTERRUPT
    return None if answer is None else answer & mask


def recorded(name: str) -> list[Any]:
    """Return the rows of a recording."""
    rows: list[Any] = json.loads(Path(TRACES, f"{name}.json").read_text())
    return rows


@pytest.mark.parametrize("name", SCRIPTS)
def test_answers_are_those_of_the_reference(name: str) -> None:
    """Every answer of a script equals the recorded one."""
    rows = recorded(name)
    steps = SCRIPTS[name]
    assert [tuple(step) for step, _ in rows] == steps, "the recording is of another script: run record.py again"
    expected = [
        (index, step, compared(step, answer)) for index, (step, (_, answer)) in enumerate(zip(steps, rows, strict=True))
    ]
    found = [
        (index, step, compared(step, answer))
        for index, (step, answer) in enumerate(zip(steps, replay(steps), strict=True))
    ]
    assert found == expected


def test_the_recordings_contain_interrupts() -> None:
    """The scripts exercise acknowledges with and without a request: a recorder without interrupts would prove nothing."""
    answers = [answer for name in SCRIPTS for step, answer in recorded(name) if step[0] == "inta"]
    vectors = {answer for answer in answers if answer != NO_INTERRUPT}
    assert {int(u8(0x30)), 0x31, 0x34, 0x3C} <= vectors
    assert NO_INTERRUPT in answers

"""The devices behind I/O exits, in the emitted monitor: a guest runs the port scripts and gets the reference PC's answers."""

from __future__ import annotations

from datetime import datetime

import pytest

from dsl.hw import vmx
from tests.devices.record import NO_INTERRUPT, START
from tests.devices.scripts import SCRIPTS, Step
from tests.devices.test_traces import compared, recorded
from tests.model import board
from tests.model.board import COM1
from tests.model.processor import TSC_HZ
from tests.model.start import machine_for
from tests.model.vmx_operation import Exit, Guest, Script
from tests.vmm.images import TestBox
from vmm.descriptor import StartMode

pytestmark = pytest.mark.t1
REASON = vmx.ExitReason
IF = 1 << 9
WINDOW = 1 << 2  # of the primary controls
STEP_TICKS = 40  # between two steps; the reference needs about that long
LONG = TestBox("a", b"\xf4", StartMode.LONG)


def access(step: Step) -> Exit:
    """The exit of a step that is an IN or OUT. Interrupts are off."""
    kind, port, *rest = step
    is_in = kind.startswith("in")
    width = 4 if kind.endswith("4") else 1
    value = 0xAAAA_AAAA_0000_0000 | (0 if is_in else rest[0])
    qualification = width - 1 | is_in << 3 | port << 16
    fields = {vmx.GUEST_RFLAGS: 2, vmx.GUEST_INTERRUPTIBILITY: 0}
    return Exit(REASON.IO_INSTRUCTION, qualification, 2, registers={"rax": value}, fields=fields, ticks=STEP_TICKS)


def run_against(steps: list[Step], expected: list[int | None]) -> None:
    """Run a script, each step an exit; the monitor's devices must answer as expected, but for a step's mask."""
    done: list[Step] = []

    def script(guest: Guest) -> Script:
        for step, answer in zip(steps, expected, strict=True):
            found: int | None = None
            if step[0] == "wait":
                yield Exit(REASON.INVD, length=2, ticks=step[1] * TSC_HZ // 1_000_000)
            elif step[0] == "inta":
                asks = bool(guest[vmx.PRIMARY_CONTROLS] & WINDOW)
                yield Exit(
                    REASON.INTERRUPT_WINDOW if asks else REASON.INVD, length=2, fields={vmx.GUEST_RFLAGS: IF | 2}
                )
                assert bool(guest.event) == asks, "an interrupt that waits asks for its window, and nothing else does"
                found = guest.event & 0xFF if guest.event else NO_INTERRUPT
                guest.vmcs[vmx.GUEST_RFLAGS] = 2  # the guest's handler, or CLI
            else:
                yield access(step)
                assert guest.event == 0
                if step[0].startswith("in"):
                    found = guest["rax"] & (0xFFFF_FFFF if step[0].endswith("4") else 0xFF)
            done.append(step)
            assert compared(step, found) == compared(step, answer), (len(done), step)

    machine = machine_for([LONG], [script])
    machine.run()
    assert not machine.exceptions, machine.serial_text()
    assert done == steps


@pytest.mark.parametrize("name", SCRIPTS)
def test_answers_are_those_of_the_reference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer of a script equals the recorded one, with the real clock where the reference's stood."""
    started = datetime.fromisoformat(START)
    numbers = {
        0: started.second,
        2: started.minute,
        4: started.hour,
        7: started.day,
        8: started.month,
        9: started.year % 100,
    }
    decimal = {register: number // 10 << 4 | number % 10 for register, number in numbers.items()}
    monkeypatch.setattr(board, "RTC", board.RTC | decimal)
    run_against(SCRIPTS[name], [answer for _, answer in recorded(name)])


# --- What comes from outside: resets, typed input, the date


def write(port: int, value: int, width: int = 1) -> Exit:
    """OUT, with interrupts off."""
    return access(("out4" if width == 4 else "out", port, value))


RESETS = [
    ([(0xCF9, 0x02), (0xCF9, 0x06)], True), ([(0xCF9, 0x04)], True), ([(0xCF9, 0x02), (0xCF9, 0x0A)], False), ([(0x64, 0xFE)], True),
    ([(0x64, 0xFF)], False), ([(0x64, 0xD1), (0x60, 0xFE)], True), ([(0x64, 0xD1), (0x60, 0xDF)], False), ([(0x92, 1)], False),
]  # fmt: skip


@pytest.mark.parametrize(("writes", "resets"), RESETS)
def test_a_box_that_asks_for_a_reset_stops(writes: list[tuple[int, int]], resets: bool) -> None:
    """By the reset control register, or through the keyboard controller; other values do nothing of the kind."""
    ran = []

    def script(guest: Guest) -> Script:
        for port, value in writes:
            yield write(port, value)
        ran.append(True)
        yield Exit(REASON.TRIPLE_FAULT)

    machine = machine_for([LONG], [script])
    machine.run()
    assert bool(ran) == (not resets)
    assert ("box a stopped: it asked for a reset (exit reason 30," in machine.serial_text()) == resets


def test_what_is_typed_comes_in() -> None:
    """Each byte once, in order, while the box reads; when it does not, what its buffers hold comes, and the rest is lost."""
    typed = bytes(0x20 + number % 90 for number in range(300))
    received = bytearray()

    def script(guest: Guest) -> Script:
        ports = guest.machine.ports
        for total in (len(typed), 3000):
            ports.typed += (typed * 10)[:total]
            while ports.typed:  # the port is looked at when the box's time is over
                yield Exit(REASON.PREEMPTION_TIMER, ticks=6_000_000)
            quiet = 0
            received.clear()
            while quiet < 3:
                yield access(("in", COM1 + 5))
                if guest["rax"] & 1:
                    quiet = 0
                    yield access(("in", COM1))
                    received.append(guest["rax"] & 0xFF)
                else:
                    quiet += 1
                    yield Exit(REASON.PREEMPTION_TIMER, ticks=6_000_000)
            kept = min(total, len(received))
            assert bytes(received) == (typed * 10)[:kept]
            assert kept == total if total < 2048 else 2048 <= kept < 2048 + 32

    machine = machine_for([LONG], [script])
    machine.time_limit = 2**62
    machine.run()
    assert not machine.exceptions
    assert received


DATES = [
    "1970-01-01 00:00:01", "1999-12-31 23:59:50", "2000-02-28 12:34:50", "2000-02-29 00:00:00", "2000-03-01 01:00:00",
    "2023-02-28 09:08:07", "2024-02-29 13:14:15", "2024-12-31 23:59:40", "2099-06-15 17:18:19", "2100-02-28 20:21:22",
    "2100-03-01 00:00:00", "2400-02-29 11:11:11", "2026-11-30 06:07:08", "2027-07-31 19:59:30", "2001-09-09 01:46:40",
    "2026-03-31 10:00:00",
]  # fmt: skip


STATUSES = [0x02, 0x06, 0x00, 0x04]  # binary or decimal, 24 or 12 hours


@pytest.mark.parametrize(("date", "status"), [(date, STATUSES[index % 4]) for index, date in enumerate(DATES)])
def test_a_box_has_the_date_of_the_wall_clock(date: str, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in any format that a clock may have: decimal or binary, 24 or 12 hours."""
    now = datetime.fromisoformat(date)

    def spelt(number: int) -> int:
        return number if status & 4 else number // 10 << 4 | number % 10

    hour = spelt(now.hour) if status & 2 else spelt((now.hour + 11) % 12 + 1) | (now.hour >= 12) << 7
    registers = {0: spelt(now.second), 2: spelt(now.minute), 4: hour, 7: spelt(now.day), 8: spelt(now.month)}
    registers |= {9: spelt(now.year % 100), 0x32: spelt(now.year // 100), 0xA: 0x26, 0xB: status}
    monkeypatch.setattr(board, "RTC", registers)
    found: dict[int, int] = {}

    def script(guest: Guest) -> Script:
        for register in (0, 2, 4, 6, 7, 8, 9, 0x32):
            yield write(0x70, register)
            yield access(("in", 0x71))
            found[register] = guest["rax"] & 0xFF

    machine = machine_for([LONG], [script])
    machine.run()
    assert not machine.exceptions
    decimal = {
        register: (value >> 4 and (value >> 4) * 10 + (value & 15)) or value for register, value in found.items()
    }
    shown = datetime(decimal[0x32] * 100 + decimal[9], decimal[8], decimal[7], decimal[4], decimal[2], decimal[0])
    assert 0 <= (shown - now).total_seconds() <= 2
    assert found[6] == shown.isoweekday() % 7 + 1


def test_the_date_is_not_read_while_it_changes() -> None:
    """The flag of an update rises shortly before each second's end, falls with the new second, and is down in between (MC146818A)."""
    second_ticks, states = TSC_HZ, []

    def script(guest: Guest) -> Script:
        def register(number: int) -> Script:
            yield write(0x70, number)
            yield access(("in", 0x71))

        def later(ticks: int) -> Exit:
            return Exit(REASON.INVD, length=2, ticks=ticks)

        yield from register(0)
        first = guest["rax"] & 0xFF
        for _ in range(1000):  # to the beginning of a second
            yield later(second_ticks // 500)
            yield from register(0)
            if guest["rax"] & 0xFF != first:
                break
        second = guest["rax"] & 0xFF
        assert second == first + 1
        yield from register(10)
        assert not guest["rax"] & 0x80
        yield later(second_ticks // 2)
        yield from register(10)
        assert not guest["rax"] & 0x80
        yield later(second_ticks // 2 - second_ticks // 200)
        for _ in range(200):
            yield later(second_ticks // 20_000)
            yield from register(10)
            is_changing = bool(guest["rax"] & 0x80)
            yield from register(0)
            states.append((guest["rax"] & 0xFF == second, is_changing))
            if states[-1] == (False, False):
                break

    machine = machine_for([LONG], [script])
    machine.time_limit = 2**62
    machine.run()
    assert not machine.exceptions
    flags = [is_changing for is_old, is_changing in states if is_old]
    rise = flags.index(True)
    assert not any(flags[:rise])
    assert all(flags[rise:-1])
    assert 2 <= len(flags) - rise <= 60
    assert states[-1] == (False, False)

"""How the TPM's drivers begin: is there one, the locality asked for and waited for, a CRB's buffers (PTP 1.05, 6.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pytest

from dsl.std import tpm_command
from dsl.std.tpm import TpmFault
from tests.boot.tpm_device import BASE, Behaviour, Crb, Fifo
from tests.std.tpm_driver import LOOKS, NO_TPM, Access, Driver, Look, Stuck

pytestmark = pytest.mark.t1
ACCESS, VALID = 0, 0x80
IDENTITY: Final = 0xF00


def start(device: Fifo | Crb, look: Look | None = None, **state: int) -> tuple[int, Driver]:
    """Take locality 0: the fault's number, and the driver."""
    driver = Driver(tpm_command.tpm_start, device, **state)
    driver.look = look or driver.look
    return driver.results()[0], driver


@pytest.mark.parametrize(
    "value", [0, 0xFFFFFFFF, *(1 << bit for bit in range(32)), *(0xFFFFFFFF ^ 1 << bit for bit in range(0, 32, 5))]
)
def test_an_empty_bus_is_no_fifo(value: int) -> None:
    """An identity of all zeros or all ones; nothing else is looked at there."""
    fault, driver = start(Fifo(lambda command: b"", Behaviour(stuck={IDENTITY: value})))
    is_there = value not in (0, 0xFFFFFFFF)
    assert fault == (0 if is_there else int(TpmFault.NO_DEVICE.value))
    assert (len(driver.trace) == 1) == (not is_there)
    assert driver.changed() == {}


def test_a_locality_is_asked_for_once() -> None:
    """At a look that is valid; and not where the locality is ours already (PTP 6.5.2.4)."""
    for looks, asked_after in (
        ([0xA0], 0),
        ([0xFF], 0),
        ([0x80, 0x80, 0xA0], 2),
        ([0x20, 0x80, 0x20, 0xA0], 2),
        ([0x7F, 0x7F, 0, 0x5F, 0x81, 0x80, 0xA1], 6),
        ([0x7F, 0x7F, 0, 0x80, 0x81, 0x7F, 0x20, 0xA1], 4),
    ):
        left = iter(looks)
        fault, driver = start(
            Fifo(lambda command: b""),
            lambda at, offset, good, left=left: next(left) if offset == ACCESS else good,  # type: ignore[misc]
        )
        assert fault == 0
        assert driver.changed() == {}
        expected = [("read", ACCESS, 1, value) for value in looks]
        if asked_after:
            expected.insert(asked_after, ("write", ACCESS, 1, 2))
        assert driver.trace[1:] == expected


@pytest.mark.parametrize("value", [0, 0x80, 0x81, 0x20, 0x7F])
def test_a_fifo_s_locality_is_waited_for(value: int) -> None:
    """For 750 ms (TIMEOUT_A), to the tick; asked for where the register is valid."""
    driver = Driver(tpm_command.tpm_start, NO_TPM)
    stuck = driver.look = Stuck(driver, ACCESS, value, 750, width=1)
    assert driver.results()[0] == int(TpmFault.NO_LOCALITY.value)
    looks: list[Access] = [row for row in driver.trace[1:] if row[0] == "read"]
    assert looks == stuck.looks()[:1] * len(looks)
    assert LOOKS <= len(looks) <= LOOKS + 1
    assert [row for row in driver.trace if row[0] == "write"] == [("write", ACCESS, 1, 2)] * (value & VALID != 0)


@pytest.mark.parametrize("value", [0, 2, 0xFFFFFFFE])
@pytest.mark.parametrize("is_granted", [False, True])
@pytest.mark.parametrize("tick", [0, 1])
def test_a_crb_s_locality_is_waited_for(value: int, is_granted: bool, tick: int) -> None:
    """Asked for first; for 750 ms (TIMEOUT_A), to the tick, whatever the time is; bit 0 grants it."""
    driver = Driver(tpm_command.tpm_start, Crb(lambda command: b""))
    driver.now += tick
    stuck = driver.look = Stuck(driver, 0x0C, value, 750, last=1 if is_granted else value)
    assert driver.results()[0] == (0 if is_granted else int(TpmFault.NO_LOCALITY.value))
    assert driver.trace[: LOOKS + 1] == [("write", 0x08, 4, 1), *stuck.looks()]
    assert (len(driver.trace) == LOOKS + 1) == (not is_granted)


def test_a_control_area_of_its_own_has_no_locality() -> None:
    """Nothing is asked for where the control area is not behind a locality's registers, as with firmware TPMs."""
    for offset in (0, 0x80, 0x140, 0x840):
        driver = Driver(tpm_command.tpm_start, Crb(lambda command: b""), registers=BASE + 0x1000 + offset)
        rooms = {0x18: 300, 0x1C: BASE, 0x24: 400, 0x28: BASE + 0x800}
        driver.look = lambda at, place, value, base=0x1000 + offset, rooms=rooms: rooms.get(place - base, 0)  # type: ignore[misc]
        assert driver.results()[0] == 0
        assert {row[0] for row in driver.trace} == {"read"}
        assert (driver.number("command_room"), driver.number("answer_room")) == (300, 400)


@dataclass(frozen=True)
class Buffers:
    """What a CRB says of its buffers."""

    command_size: int = 512
    command_low: int = BASE + 0x80
    command_high: int = 0
    answer_size: int = 1024
    answer_low: int = BASE + 0x400
    answer_high: int = 0

    def registers(self) -> dict[int, int]:
        """By offset of the register."""
        return {
            0x58: self.command_size, 0x5C: self.command_low, 0x60: self.command_high,
            0x64: self.answer_size, 0x68: self.answer_low, 0x6C: self.answer_high,
        }  # fmt: skip


HIGHEST: Final = 0xFFFFFFFF
BUFFERS: Final = [
    (Buffers(), True),
    (Buffers(command_size=10, answer_size=10), True),
    (Buffers(command_size=9), False),
    (Buffers(answer_size=9), False),
    (Buffers(command_size=0), False),
    (Buffers(answer_size=0), False),
    (Buffers(command_low=0), False),
    (Buffers(answer_low=0), False),
    (Buffers(command_low=1, answer_low=1), True),
    (Buffers(command_size=0x1000, command_low=0xFFFFF000), True),
    (Buffers(command_size=0x1001, command_low=0xFFFFF000), False),
    (Buffers(answer_size=0x1000, answer_low=0xFFFFF000), True),
    (Buffers(answer_size=0x1001, answer_low=0xFFFFF000), False),
    (Buffers(command_size=HIGHEST, command_low=1), True),
    (Buffers(command_size=HIGHEST, command_low=2), False),
    (Buffers(answer_size=HIGHEST, answer_low=1), True),
    (Buffers(answer_size=HIGHEST, answer_low=2), False),
    (Buffers(command_size=HIGHEST, command_low=HIGHEST), False),
    (Buffers(answer_size=HIGHEST, answer_low=HIGHEST), False),
    *((Buffers(command_high=1 << bit), False) for bit in (0, 1, 7, 31)),
    *((Buffers(answer_high=1 << bit), False) for bit in (0, 1, 7, 31)),
]


@pytest.mark.parametrize(("buffers", "is_good"), BUFFERS, ids=str)
def test_where_a_crb_has_its_buffers(buffers: Buffers, is_good: bool) -> None:
    """Below 4 GiB to their last bytes, with room for a head, and somewhere; then they are noted as they are."""
    fault, driver = start(Crb(lambda command: b"", Behaviour(stuck=buffers.registers())), command_room=0, answer_room=0)
    assert fault == (0 if is_good else int(TpmFault.BUFFERS.value))
    if is_good:
        noted = [driver.number(name) for name in ("command_room", "answer_room", "command_buffer", "answer_buffer")]
        assert noted == [buffers.command_size, buffers.answer_size, buffers.command_low, buffers.answer_low]
        assert driver.changed().keys() <= {"command_room", "answer_room", "command_buffer", "answer_buffer"}

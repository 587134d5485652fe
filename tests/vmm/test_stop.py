"""The monitor's own exceptions: always said, once, and never followed by anything."""

from __future__ import annotations

import pytest

import vmm.interrupts
from dsl.hw.x86 import VECTOR_GP
from dsl.lang import Machine, address_of, u8, u64
from dsl.lang.model import Halted
from vmm.console import CONSOLE, console_byte
from vmm.cpu import BOOT_CPU
from vmm.devices.ring import RING_SIZE
from vmm.interrupts import InterruptFrame, stop_on_exception

pytestmark = pytest.mark.t0


@pytest.fixture
def sent(model: Machine, monkeypatch: pytest.MonkeyPatch) -> bytearray:
    """What the monitor's ring gave at each flush, with a CPU to stop."""
    BOOT_CPU.self_address = address_of(BOOT_CPU)
    model.cpu.msrs[0xC000_0101] = int(address_of(BOOT_CPU).as_u64())
    out = bytearray()

    def flush(now: u64) -> None:
        ring = CONSOLE.monitor
        while ring.taken != ring.written:
            out.append(int(ring.bytes[ring.taken & (RING_SIZE - 1)]))
            ring.taken += 1

    monkeypatch.setattr(vmm.interrupts, "console_flush", flush)
    return out


def test_the_last_words_find_room(sent: bytearray) -> None:
    """With a full ring of other words the exception is said all the same."""
    for _ in range(RING_SIZE):
        console_byte(u8(0x2E))
    with pytest.raises(Halted):
        stop_on_exception(InterruptFrame(), u64(VECTOR_GP))
    assert b"stopped: exception 13 error 0x0000000000000000" in sent


def test_an_exception_on_the_way_is_the_end(sent: bytearray) -> None:
    """A second exception, while the first is reported, stops the CPU at once: no endless tower of reports."""
    BOOT_CPU.is_stopping = True
    with pytest.raises(Halted):
        stop_on_exception(InterruptFrame(), u64(VECTOR_GP))
    assert sent == b""
    assert CONSOLE.monitor.written == 0

"""All scripts of boxes that do what they like."""

from __future__ import annotations

from typing import Final

from tests.model import random_devices as devices
from tests.model import random_exits as exits
from tests.model.random_source import BoxScript

PARTS: Final[dict[str, BoxScript]] = {
    script.__name__: script
    for script in (
        devices.uart, devices.uart_full_ring, devices.pic, devices.pit, devices.rtc, devices.i8042, devices.board,
        exits.cpuid, exits.msr, exits.control_registers, exits.events, exits.absent_memory, exits.protected_memory,
        exits.long_memory, exits.hypercalls, exits.late,
    )
}  # fmt: skip

"""Starts the emitted monitor on the model."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Sequence

from boot.handoff import MONITOR_BASE
from dsl.compiler.pipeline import Program
from tests.model.image import physical_memory
from tests.model.processor import Processor
from tests.model.sites import Site, find_sites
from tests.model.vmx_operation import Guest, Script, VmxMachine
from tests.vmm.images import TestBox, monitor

ENTRY_OFFSET = 8


@functools.cache
def sites_of(image: bytes) -> dict[int, Site]:
    """The special instructions of the monitor, found once."""
    return find_sites(image, MONITOR_BASE)


def machine_for(
    boxes: Sequence[TestBox],
    scripts: Sequence[Callable[[Guest], Script]] = (),
    processor: Processor | None = None,
    program: Program | None = None,
) -> VmxMachine:
    """A machine where the loader has just ended."""
    image = (program or monitor()).image
    (entry,) = struct.unpack_from("<I", image, ENTRY_OFFSET)
    memory = physical_memory(image, boxes)
    machine = VmxMachine(memory, processor or Processor(), sites_of(image), MONITOR_BASE + entry)
    machine.scripts = list(scripts)
    return machine


def play(
    script: Callable[[Guest], Script],
    box: TestBox | None = None,
    processor: Processor | None = None,
    ending: str = "triple fault",
) -> VmxMachine:
    """Run one box by a script, to the end of the machine. The monitor must not have faulted. ending: of the box; else the script's end."""
    machine = machine_for([box or TestBox("a", b"\xf4")], [script], processor)
    machine.run()
    assert not machine.exceptions, machine.serial_text()
    assert f"stopped: {ending}" in machine.serial_text(), machine.serial_text()
    return machine

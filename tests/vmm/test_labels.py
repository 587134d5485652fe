"""No box speaks in the monitor's name."""

from __future__ import annotations

import pytest

from dsl.lang import Failure, HostVirtual, Machine
from tests.vmm.images import TestBox
from vmm.box_check import Fault, check_descriptor
from vmm.descriptor import MONITOR_LABEL, BoxDescriptor

pytestmark = pytest.mark.t0
PLACE = 0x10000


@pytest.mark.parametrize(("name", "refused"), [("terrane", True), ("terrane-", False), ("terran", False), ("a", False)])
def test_the_monitor_s_label_is_refused(model: Machine, name: str, refused: bool) -> None:
    """A signed descriptor with the label that leads the monitor's lines breaks the rule for labels; others do not."""
    assert MONITOR_LABEL == b"terrane"
    model.memory.map(PLACE, 4096, TestBox(name, b"\xf4").descriptor())
    result = check_descriptor(BoxDescriptor.at(HostVirtual(PLACE)))
    assert (isinstance(result, Failure) and result.code == Fault.LABEL.value) == refused

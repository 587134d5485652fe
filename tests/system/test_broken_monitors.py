"""A monitor broken on purpose lets the intruder find what a good one hides: so the intruder's zero means something."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.system import made, mutants
from tests.system.machine import BOCHS, Running
from tests.system.made import INTRUDER, WITNESS
from tests.system.mutants import Mutant
from tests.system.test_memory import ALL_RAM

pytestmark = [pytest.mark.t2, pytest.mark.slow, pytest.mark.skipif(BOCHS is None, reason="Bochs is not installed")]
SWITCH = "vmm/switch.py"
LOADING = "def load_state("
VERDICT = re.compile(r"witness canaries (?:intact|damaged: 0x([0-9a-f]{8,16}))")


def without(line: str, behind: str = "") -> Mutant:
    """A line of vmm/switch.py left out."""
    return Mutant(SWITCH, f"    {line}\n", "", behind)


MUTANTS = {
    "XMM": without("xrstor64(state.xsave_area, EXTENDED_STATE.allowed)", LOADING),
    "CR2": without("write_cr2(state.cr2)", LOADING),
    "DR": without("write_dr2(state.dr2)", LOADING),
    "MSR 0x00000000c0000082": without("wrmsr(u32(IA32_LSTAR), state.lstar)", LOADING),
    "MSR 0x00000000c0000102": without("wrmsr(u32(IA32_KERNEL_GS_BASE), state.kernel_gs_base)", LOADING),
    "memory": ALL_RAM,
}


@pytest.mark.parametrize("where", MUTANTS)
def test_the_intruder_finds_canaries(tmp_path: Path, where: str) -> None:
    """Without the restoring of a register, or with an EPT that reaches too far, canaries are found, and where they leak."""
    broken = mutants.monitor_of(tmp_path, MUTANTS[where])
    image = made.make(tmp_path, [WITNESS, INTRUDER], other_monitor=broken)
    with Running(image) as machine:
        machine.wait_text("intruder", f"intruder: CANARY in {where}")


def test_the_intruders_total_counts_them(tmp_path: Path) -> None:
    """The total that a good monitor keeps at zero."""
    broken = mutants.monitor_of(tmp_path, MUTANTS["CR2"])
    image = made.make(tmp_path, [WITNESS, INTRUDER], other_monitor=broken)
    with Running(image) as machine:
        said = machine.wait_text("intruder", "intruder done")
    found = re.search(r"intruder: canaries found (\d+)", said)
    assert found is not None
    assert int(found[1]) > 0


@pytest.mark.parametrize(
    ("left_out", "damage"),
    [
        ("state.dr1 = read_dr1()", 0x02),
        ("state.cr2 = read_cr2()", 0x04),
        ("state.lstar = rdmsr(u32(IA32_LSTAR))", 0x08),
    ],
)
def test_the_witness_notices_what_is_not_saved(tmp_path: Path, left_out: str, damage: int) -> None:
    """Without the saving of a register the witness finds its canary damaged, and says which."""
    broken = mutants.monitor_of(tmp_path, without(left_out))
    image = made.make(tmp_path, [WITNESS, INTRUDER], other_monitor=broken)
    with Running(image) as machine:
        machine.wait_text("witness", "witness ready")
        machine.wait_text("intruder", "intruder done")
        machine.type("witness", "canaries")
        machine.wait(lambda: VERDICT.search(machine.said("witness")) is not None, "the witness's word on its canaries")
        found = VERDICT.search(machine.said("witness"))
    assert found is not None
    assert found[1] is not None, "intact"
    assert int(found[1], 16) & damage

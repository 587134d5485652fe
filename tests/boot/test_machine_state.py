"""Other processors, other bus masters, and what memory is handed over, under CPython."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from boot import places, quiet
from boot.handoff import Handoff
from boot.parameters import BootParameters
from boot.refusal import Rule
from dsl.lang import CheckFailed, HostVirtual
from dsl.lang.model import Halted, Machine
from tests.boot.model import STAGING, Apic, Pci, machine_with, parameters

pytestmark = pytest.mark.t0
PARTITION = bytes(0x3000)


@pytest.fixture
def machine() -> Iterator[Machine]:
    model, _, _ = machine_with(PARTITION, bytes(32))
    model.memory.map(0xFEC00000, 0x400000)
    with model:
        yield model


def commands_to(machine: Machine, base: int) -> list[int]:
    """What park_processors wrote to an APIC in memory, with APIC_BASE as given."""
    apic = Apic()
    machine.memory.map_device(0xFED00000, 4096, apic)
    machine.msrs[0x1B] = base
    quiet.park_processors()
    return apic.commands


def test_other_processors_get_init(machine: Machine) -> None:
    assert commands_to(machine, 0xFED00900) == [0xC4500]


def test_an_x2apic_is_asked_through_its_register(machine: Machine) -> None:
    machine.msrs[0x830] = 0
    assert commands_to(machine, 0xFED00D00) == []
    assert machine.msrs[0x830] == 0xC4500


def test_an_apic_that_is_off_is_left_alone(machine: Machine) -> None:
    assert commands_to(machine, 0xFED00100) == []


def test_an_apic_beyond_the_identity_map_stops_the_loader(machine: Machine) -> None:
    with pytest.raises(CheckFailed):
        commands_to(machine, 0x1_FED0_0900)


def test_all_functions_of_all_buses_lose_bus_mastering(machine: Machine) -> None:
    pci = machine.ports[0xCF8]
    assert isinstance(pci, Pci)
    pci.functions = {
        0x0000: [0x1, 0xFFFF0007, 0, 0],  # one function: the next two are not looked at
        0x0001: [0x1, 0x7, 0, 0],
        0x0102: [0x1, 0x7, 0, 0],  # no function 0: not there
        0x0700: [0x1, 0x4, 0, 0x00810000],  # a bridge, with several functions
        0x0707: [0x1, 0x6, 0, 0],
        0xFFF8: [0x1, 0x5, 0, 0],  # the last device of the last bus
        0xFF00: [0x1, 0x3, 0, 0],
    }
    assert int(quiet.stop_bus_masters()) == 4
    after = {function: registers[1] & 0xFFFF for function, registers in pci.functions.items()}
    assert after == {0: 3, 1: 7, 0x102: 7, 0x700: 0, 0x707: 2, 0xFFF8: 1, 0xFF00: 3}
    assert pci.functions[0][1] == 3  # the status half was written with zeros, which clears nothing


@pytest.mark.parametrize(
    ("cpuid", "expected"),
    [
        ({(0x80000000, 0): (0x80000007, 0, 0, 0)}, 36),
        ({(0x80000000, 0): (0x80000008, 0, 0, 0), (0x80000008, 0): (0x302E, 0, 0, 0)}, 46),
    ],
)
def test_the_width_of_physical_addresses(
    machine: Machine, cpuid: dict[tuple[int, int], tuple[int, int, int, int]], expected: int
) -> None:
    machine.cpuid = cpuid
    assert int(places.physical_bits()) == expected


def find(machine: Machine, rows: list[tuple[int, int, int, int]]) -> None:
    machine.memory.write(0x7000, parameters(PARTITION, rows))
    places.find_memory(BootParameters.at(HostVirtual(0x7000)))


def test_memory_above_what_the_processor_can_address_is_not_used(machine: Machine) -> None:
    machine.cpuid[0x80000008, 0] = (40, 0, 0, 0)
    find(machine, [(0x100000, 0x3F00000, 1, 1), (1 << 38, 1 << 41, 1, 1)])
    count = int(places.REMAINING.count)
    assert int(places.REMAINING.ranges[count - 1].end) == 1 << 39  # 512 GiB: what the direct map spans
    machine.cpuid[0x80000008, 0] = (36, 0, 0, 0)
    find(machine, [(0x100000, 0x3F00000, 1, 1), (1 << 35, 1 << 41, 1, 1)])
    assert int(places.REMAINING.ranges[int(places.REMAINING.count) - 1].end) == 1 << 36


def test_the_staging_area_is_kept_free_until_the_end(machine: Machine) -> None:
    find(machine, [(0, 0xA0000, 1, 1), (0x100000, 0x3F00000, 1, 1)])
    free = [(int(item.base), int(item.end)) for item in (places.FREE.ranges[index] for index in range(2))]
    assert free == [(0x100000, STAGING), (STAGING + 0x3000, 0x4000000)]
    assert (int(places.REMAINING.count), int(places.REMAINING.ranges[0].base)) == (1, 0x100000)


def test_an_allocation_that_cannot_be_is_refused(machine: Machine) -> None:
    from dsl.lang import u64

    find(machine, [(0x100000, 0x3F00000, 1, 1)])
    with pytest.raises(Halted):
        places.allocate(u64(1 << 30), u64(4096), Rule.MEMORY_ENTRY, u64(3))


def test_a_map_of_too_many_ranges_loses_its_smallest(machine: Machine) -> None:
    rows = [(0x100000, 0x2000000, 1, 1)]
    rows += [(0x4000000 + index * 0x10000, 0x2000 + 0x1000 * (index != 50), 1, 1) for index in range(64)]
    find(machine, rows)
    machine.memory.map(0x9000000, 0x5000)
    handoff = Handoff.at(HostVirtual(0x9000000))
    places.hand_over_memory(handoff)
    assert int(handoff.range_count) == 64
    bases = [int(handoff.ranges[index].base) for index in range(64)]
    assert bases == [0x100000, *(row[0] for row in rows[1:] if row[1] == 0x3000)]

"""A box at run time: its virtual CPU, devices, memory and keys, and the table of all boxes."""

from __future__ import annotations

from typing import Final

from dsl.lang import Array, HostVirtual, Struct, array, array_at, i64, machine, static, u8, u32, u64
from dsl.lang.intrinsics import rdtsc
from dsl.std.x509 import KeyPair
from vmm.abi import Certificate
from vmm.clock import to_nanoseconds
from vmm.devices.board import Board
from vmm.guest_memory import GuestMemory
from vmm.vcpu import VirtualCpu


class Box(Struct):
    """One box. Made at start, never moved."""

    vcpu: VirtualCpu
    board: Board
    memory: GuestMemory
    started_tsc: u64  # the host's TSC at the box's time 0
    credit: i64  # nanoseconds that it may still run in this round; below 0: it has run ahead
    run_ns: u64  # how long it ran, the monitor's work for it included
    device_deadline: u64  # nanoseconds since start: when the devices want attention
    flags: u64  # of the descriptor
    weight: u32
    index: u32
    is_reclaimed: bool  # its memory was given back
    padding: Array[u8] = array(7)
    reclaim_position: u64  # frames of a stopped box that were already released
    label: Array[u8] = array(32)
    identity: Array[u8] = array(32)  # SHA-256 of the descriptor
    keys: KeyPair
    certificate: Certificate


class Boxes(Struct):
    """Where the boxes are."""

    first: HostVirtual
    count: u64


BOXES: Final = static(Boxes)


@machine
def all_boxes() -> Array[Box]:
    """All boxes, in image order."""
    # Safe because the monitor's pages at `first` were taken for `count` boxes, before the first one was made.
    return array_at(Box, BOXES.first, BOXES.count)


@machine
def box_time(box: Box) -> u64:
    """Nanoseconds since the box started."""
    return to_nanoseconds(rdtsc() - box.started_tsc)

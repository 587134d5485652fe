"""After a box has stopped: say why, and give its memory back through quarantine, a frame at a time."""

from __future__ import annotations

from typing import Final

from dsl.hw.x86 import PAGE_SIZE
from dsl.lang import Array, Failure, array_at, erase, machine, table, text, u8, u64, upto
from vmm.box import Box, all_boxes
from vmm.console import console_decimal, console_hex, console_line, console_newline, console_padded, console_text
from vmm.cpu import CPU, NO_BOX
from vmm.descriptor import FLAG_CLOSED
from vmm.engine import unmap_all
from vmm.guest_memory import GuestMemory
from vmm.memory import release_frame, withdraw_frame
from vmm.vcpu import StopReason

REASON_SIZE: Final = 32  # bytes of a text in REASONS
REASON_TEXTS: Final = {
    StopReason.NONE: b"running",
    StopReason.TRIPLE_FAULT: b"triple fault",
    StopReason.UNKNOWN_EXIT: b"unknown exit",
    StopReason.ENTRY_FAILURE: b"entry refused",
    StopReason.RESET_REQUESTED: b"it asked for a reset",
    StopReason.HALTED_FOREVER: b"halted with interrupts off",
    StopReason.DELIVERY_FAILURE: b"no memory to deliver an event",
    StopReason.TASK_SWITCH: b"task switch",
    StopReason.MACHINE_CHECK: b"machine check",
}
REASONS: Final = table(u8, b"".join(REASON_TEXTS[reason].ljust(REASON_SIZE, b"\0") for reason in StopReason))
NAME_SIZE: Final = 8  # bytes of a name in DUMP_NAMES
DUMP_NAMES: Final = table(
    u8, b"".join(name.ljust(NAME_SIZE, b"\0") for name in b"reason qual rip rsp rflags cr0 cr3 cr4".split())
)


@machine
def say_named(name: Array[u8], value: u64) -> None:
    """Say one value of a dump."""
    console_text(text(" "))
    console_padded(name)
    console_text(text(" "))
    console_hex(value)


@machine
def begin_dump_line(box: Box) -> None:
    """Begin a line about a box."""
    console_text(text("box "))
    console_padded(box.label)


@machine
def say_registers(box: Box) -> None:
    """Say the dump of a box: the exit and system registers, then general ones."""
    begin_dump_line(box)
    for index in upto(8):
        if index == 4:
            console_newline()
            begin_dump_line(box)
        say_named(DUMP_NAMES.slice(index * NAME_SIZE, u64(NAME_SIZE)), box.vcpu.dump[index])
    console_newline()
    registers = box.vcpu.registers
    begin_dump_line(box)
    say_named(text("rax"), registers.rax)
    say_named(text("rbx"), registers.rbx)
    say_named(text("rcx"), registers.rcx)
    say_named(text("rdx"), registers.rdx)
    console_newline()
    begin_dump_line(box)
    say_named(text("rsi"), registers.rsi)
    say_named(text("rdi"), registers.rdi)
    say_named(text("rbp"), registers.rbp)
    say_named(text("r8"), registers.r8)
    console_newline()


@machine
def announce_stop(box: Box) -> None:
    """Say that a box has stopped and why; of an open box also what its processor held. A closed box's registers are nobody's to read."""
    begin_dump_line(box)
    console_text(text(" stopped: "))
    console_padded(REASONS.slice(u64(box.vcpu.stop_reason) * REASON_SIZE, u64(REASON_SIZE)))
    console_text(text(" (exit reason "))
    console_decimal(u64(box.vcpu.stop_detail))
    console_text(text(", after "))
    console_decimal(box.vcpu.exit_count)
    console_line(text(" exits)"))
    if box.flags & FLAG_CLOSED == 0:
        say_registers(box)


@machine
def erase_secrets(box: Box) -> None:
    """Erase what the monitor keeps of a stopped box: its key, its registers, its extended state."""
    switch = box.vcpu.switch
    # Safe because the page was taken for this, when the box was made.
    erase(array_at(u8, switch.xsave_area, u64(PAGE_SIZE)))
    erase(switch)
    erase(box.vcpu.registers)
    erase(box.vcpu.dump)
    erase(box.keys)


@machine
def begin_reclaim(box: Box) -> None:
    """First phase: no mapping of the box's memory is left, and its frames wait in quarantine."""
    CPU.current().running_box = u64(NO_BOX)
    erase_secrets(box)
    unmap_all(box.vcpu)
    memory = box.memory
    for index in upto(memory.frame_count):
        withdrawn = withdraw_frame(frame_of(memory, index))
        assert not isinstance(withdrawn, Failure), "a box's frames are owned"
    box.reclaim_position = u64(0)
    box.is_reclaimed = False


@machine
def frame_of(memory: GuestMemory, index: u64) -> u64:
    """The number of a box's frame."""
    # Safe because the array was made with frame_count entries.
    frames = array_at(u64, memory.frames, memory.frame_count)
    return frames[index]


@machine
def reclaim_step() -> bool:
    """Second phase, in idle time: zero one frame of a stopped box and free it. False: nothing is left to do."""
    boxes = all_boxes()
    for index in upto(boxes.length):
        box = boxes[index]
        if box.vcpu.stop_reason != StopReason.NONE.value and not box.is_reclaimed:
            released = release_frame(frame_of(box.memory, box.reclaim_position))
            assert not isinstance(released, Failure), "a stopped box's frames are in quarantine"
            box.reclaim_position += 1
            box.is_reclaimed = box.reclaim_position == box.memory.frame_count
            return True
    return False

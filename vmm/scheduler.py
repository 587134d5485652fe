"""Who runs next, and for how long: weighted round robin on one CPU, each box charged for all that is done on its behalf.

A round gives every box credit in proportion to its weight; a box runs while it has credit, at most a slice at a time. What a box costs (its
exits and hypercalls included) comes off its credit, below zero if it must, so a flood in one box cannot starve another.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import Struct, divide_truncating, i64, machine, minimum, static, text, u64, upto
from dsl.lang.intrinsics import rdtsc
from vmm.apic import wait_for_interrupt
from vmm.box import Box, all_boxes, box_time
from vmm.clock import to_nanoseconds, to_ticks
from vmm.console import console_line
from vmm.console_port import console_poll
from vmm.cpu import CPU, NO_BOX
from vmm.devices.board import board_acknowledge, board_advance, board_interrupt_pending
from vmm.engine import (
    RUN_EXIT,
    RUN_NOT_ENTERED,
    RUN_REFUSED,
    can_take_interrupt,
    deliver_deferred,
    deliver_interrupt,
    exit_reason,
    run,
    select,
    take_interrupted_delivery,
    want_interrupt_window,
)
from vmm.exits.dispatch import HANDLERS
from vmm.exits.stop import handle_refused_entry
from vmm.reclaim import announce_stop, begin_reclaim, reclaim_step
from vmm.switch import clear_buffers, load_state, save_state
from vmm.vcpu import NO_DEADLINE, Resume, StopReason

GRANT_NS: Final = 50_000  # credit of a round for each unit of weight: 5 ms at weight 100
SLICE_NS: Final = 5_000_000  # the longest time without a look at the other boxes
NONE: Final = 0xFFFF_FFFF_FFFF_FFFF  # no box


class Scheduler(Struct):
    """One CPU's scheduler."""

    last: u64  # the box that ran last
    started_tsc: u64  # time 0 of the monitor
    console_due: u64  # ns of monitor time


SCHEDULER: Final = static(Scheduler)


@machine
def monitor_time() -> u64:
    """Nanoseconds since the scheduler started."""
    return to_nanoseconds(rdtsc() - SCHEDULER.started_tsc)


@machine
def is_stopped(box: Box) -> bool:
    """Say whether a box will never run again."""
    return box.vcpu.stop_reason != StopReason.NONE.value


@machine
def is_runnable(box: Box) -> bool:
    """Say whether a box has something to run."""
    return not is_stopped(box) and not box.vcpu.is_halted


@machine
def grant_of(box: Box) -> i64:
    """The credit that a round gives a box."""
    return (u64(box.weight) * GRANT_NS).as_signed()


@machine
def rounds_needed(box: Box) -> i64:
    """How many rounds until a box has credit: at least 1."""
    if box.credit > 0:
        return i64(1)
    return divide_truncating(-box.credit, grant_of(box)) + 1


@machine
def begin_round() -> None:
    """Give credit to all, as many rounds at once as the first runnable box needs. Credit is not saved up beyond one round."""
    boxes = all_boxes()
    rounds = i64(0x7FFF_FFFF)
    for index in upto(boxes.length):
        if is_runnable(boxes[index]):
            rounds = minimum(rounds, rounds_needed(boxes[index]))
    for index in upto(boxes.length):
        box = boxes[index]
        grant = grant_of(box)
        box.credit = grant if rounds_needed(box) <= rounds else box.credit + grant * rounds


@machine
def next_with_credit() -> u64:
    """The next runnable box with credit, in turn after the last one; NONE if there is none."""
    boxes = all_boxes()
    for step in upto(boxes.length):
        index = (SCHEDULER.last + 1 + step) % boxes.length
        if is_runnable(boxes[index]) and boxes[index].credit > 0:
            return index
    return u64(NONE)


@machine
def has_runnable() -> bool:
    """Say whether any box has something to run."""
    boxes = all_boxes()
    for index in upto(boxes.length):
        if is_runnable(boxes[index]):
            return True
    return False


@machine
def choose_box() -> u64:
    """The box to run now; NONE: all wait or have stopped."""
    if not has_runnable():
        return u64(NONE)
    index = next_with_credit()
    if index == NONE:
        begin_round()
        index = next_with_credit()
    return index


@machine
def advance_devices(box: Box, now: u64) -> None:
    """Bring a box's devices up to `now`, in ns of its time, if they were touched or their time has come."""
    if box.board.needs_advance or now >= box.device_deadline:
        box.device_deadline = board_advance(box.board, now)


@machine
def wake_boxes() -> None:
    """Wake the halted boxes for which an interrupt has come."""
    boxes = all_boxes()
    for index in upto(boxes.length):
        box = boxes[index]
        if box.vcpu.is_halted and not is_stopped(box):
            advance_devices(box, box_time(box))
            if board_interrupt_pending(box.board) or box.vcpu.pending.deferred != 0:
                box.vcpu.is_halted = False


@machine
def poll_console(now: u64) -> None:
    """Move the console on, when it is due; the devices of every box may see the result."""
    if now < SCHEDULER.console_due:
        return
    SCHEDULER.console_due = console_poll(now)
    boxes = all_boxes()
    for index in upto(boxes.length):
        boxes[index].board.needs_advance = True


@machine
def deadline_ticks(box: Box, tsc: u64, now: u64) -> u64:
    """The host's TSC value at which a box's devices want attention, counted from a moment that has just been: `tsc`, `now` in the box's ns.

    Counted from the box's start, the rounding of the conversions between ticks and nanoseconds would add up.
    """
    if box.device_deadline == NO_DEADLINE:
        return u64(NO_DEADLINE)
    return tsc + to_ticks(box.device_deadline - minimum(now, box.device_deadline)) + 1


@machine
def offer_interrupt(box: Box) -> None:
    """Deliver what the interrupt controller wants, or ask for an exit when the guest can take it."""
    vcpu = box.vcpu
    if vcpu.pending.deferred == 0 and not board_interrupt_pending(box.board):
        want_interrupt_window(vcpu, False)
        return
    if vcpu.pending.deferred != 0:
        deliver_deferred(vcpu)
    if vcpu.pending.deferred == 0 and board_interrupt_pending(box.board) and can_take_interrupt(vcpu):
        deliver_interrupt(vcpu, board_acknowledge(box.board))
    want_interrupt_window(vcpu, vcpu.pending.deferred != 0 or board_interrupt_pending(box.board))


@machine
def switch_to(box: Box) -> None:
    """Make a box the one whose state is in the processor."""
    cpu = CPU.current()
    if cpu.running_box == u64(box.index):
        return
    if cpu.running_box != NO_BOX:
        save_state(all_boxes()[cpu.running_box].vcpu.switch)
    load_state(box.vcpu.switch)
    select(box.vcpu)
    cpu.running_box = u64(box.index)


@machine
def handle_exit(box: Box) -> Resume:
    """Handle one exit."""
    box.vcpu.exit_count += 1
    take_interrupted_delivery(box.vcpu)
    return HANDLERS.call(exit_reason(), box)


@machine
def run_once(box: Box, slice_end: u64) -> Resume:
    """Bring devices and interrupts up to date, run until the next exit or deadline, and handle it."""
    vcpu = box.vcpu
    tsc = rdtsc()
    now = to_nanoseconds(tsc - box.started_tsc)
    advance_devices(box, now)
    offer_interrupt(box)
    vcpu.deadline_tsc = minimum(slice_end, deadline_ticks(box, tsc, now))
    clear_buffers()
    outcome = run(vcpu)
    if outcome == RUN_EXIT:
        return handle_exit(box)
    if outcome == RUN_REFUSED:
        return handle_refused_entry(box)
    if outcome == RUN_NOT_ENTERED:
        CPU.current().exit_frame.nmi_pending = u64(0)
    return Resume.GUEST


@machine
def slice_ticks(box: Box) -> u64:
    """How long a box may run now, in TSC ticks: its credit, a slice, or until the console is due."""
    nanoseconds = minimum(box.credit.as_unsigned(), u64(SLICE_NS))
    now = monitor_time()
    until_console = SCHEDULER.console_due - now if SCHEDULER.console_due > now else u64(0)
    return to_ticks(minimum(nanoseconds, until_console))


@machine
def run_slice(box: Box) -> None:
    """Run a box until its slice ends, it waits, or it stops; charge it for the time."""
    started = rdtsc()
    slice_end = started + slice_ticks(box)
    switch_to(box)
    resume = Resume.GUEST
    while resume == Resume.GUEST and rdtsc() < slice_end:
        resume = run_once(box, slice_end)
    if resume == Resume.HALT:
        box.vcpu.is_halted = True
    used = to_nanoseconds(rdtsc() - started)
    box.run_ns += used
    box.credit -= used.as_signed()
    if resume == Resume.STOP:
        announce_stop(box)
        begin_reclaim(box)


@machine
def earliest_deadline(now: u64) -> u64:
    """The monitor time at which the first halted box's devices, or the console, want attention.

    A box's time began before the monitor's, so what is compared is how long each still has.
    """
    boxes = all_boxes()
    earliest = SCHEDULER.console_due
    for index in upto(boxes.length):
        box = boxes[index]
        if not is_stopped(box) and box.device_deadline != NO_DEADLINE:
            box_now = minimum(box_time(box), box.device_deadline)
            earliest = minimum(earliest, now + (box.device_deadline - box_now))
    return earliest


@machine
def all_stopped() -> bool:
    """Say whether every box has stopped."""
    boxes = all_boxes()
    for index in upto(boxes.length):
        if not is_stopped(boxes[index]):
            return False
    return True


@machine
def idle() -> None:
    """Nothing to run: wait until something is due."""
    now = monitor_time()
    due = earliest_deadline(now)
    if due > now:
        wait_for_interrupt(due - now)


@machine
def schedule() -> None:
    """Run the boxes until all have stopped and their memory is zero."""
    while not all_stopped():
        poll_console(monitor_time())
        wake_boxes()
        index = choose_box()
        if index == NONE:
            if not reclaim_step():
                idle()
        else:
            SCHEDULER.last = index
            run_slice(all_boxes()[index])
    while reclaim_step():
        pass
    console_line(text("all boxes have stopped"))

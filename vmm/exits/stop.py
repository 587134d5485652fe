"""The end of a box: why, and what its processor held."""

from __future__ import annotations

from dsl.lang import machine
from vmm.box import Box
from vmm.engine import capture_dump, exit_reason, refusal_number
from vmm.vcpu import Resume, StopReason


@machine
def stop_box(box: Box, reason: StopReason) -> Resume:
    """Stop a box for good. Its current exit is kept for the dump that the scheduler prints."""
    vcpu = box.vcpu
    vcpu.stop_reason = reason.value
    vcpu.stop_detail = exit_reason()
    capture_dump(vcpu)
    return Resume.STOP


@machine
def handle_triple_fault(box: Box) -> Resume:
    """The guest could not deliver a double fault."""
    return stop_box(box, StopReason.TRIPLE_FAULT)


@machine
def handle_task_switch(box: Box) -> Resume:
    """A task switch: no guest of ours makes one, and nothing here emulates it."""
    return stop_box(box, StopReason.TASK_SWITCH)


@machine
def handle_entry_failure(box: Box) -> Resume:
    """The processor refused the guest's state at entry."""
    return stop_box(box, StopReason.ENTRY_FAILURE)


@machine
def handle_refused_entry(box: Box) -> Resume:
    """VMLAUNCH or VMRESUME failed: there was no exit, so the instruction error is kept in place of its reason."""
    stopped = stop_box(box, StopReason.ENTRY_FAILURE)
    box.vcpu.stop_detail = refusal_number()
    return stopped


@machine
def handle_unknown_exit(box: Box) -> Resume:
    """Whatever has no handler ends this box, and only this one."""
    return stop_box(box, StopReason.UNKNOWN_EXIT)

"""Instructions that a guest does not have, or that do nothing for it."""

from __future__ import annotations

from typing import Final

from dsl.lang import machine, shift_right_wrapping, u64
from vmm.box import Box
from vmm.engine import advance_instruction, exit_reason, inject_general_protection, inject_invalid_opcode
from vmm.exits.stop import handle_unknown_exit
from vmm.vcpu import Exit, Resume

ABSENT: Final = (  # VMX, SMX, SGX, MONITOR, MWAIT, RDRAND, RDSEED: hidden by CPUID
    Exit.RDRAND, Exit.RDSEED, Exit.MONITOR, Exit.MWAIT, Exit.GETSEC, Exit.VMCLEAR, Exit.VMLAUNCH, Exit.VMPTRLD,
    Exit.VMPTRST, Exit.VMREAD, Exit.VMRESUME, Exit.VMWRITE, Exit.VMXOFF, Exit.VMXON, Exit.INVEPT, Exit.INVVPID,
    Exit.VMFUNC, Exit.ENCLS,
)  # fmt: skip
ABSENT_BITS: Final = sum(1 << int(reason.value) for reason in ABSENT)


@machine
def handle_other_exit(box: Box) -> Resume:
    """An instruction that a guest does not have is #UD, whatever the ring; whatever else comes here ends the box."""
    reason = exit_reason()
    if reason >= 64 or shift_right_wrapping(u64(ABSENT_BITS), reason) & 1 == 0:
        return handle_unknown_exit(box)
    inject_invalid_opcode(box.vcpu)
    return Resume.GUEST


@machine
def handle_rdpmc(box: Box) -> Resume:
    """No performance counters: #GP(0)."""
    inject_general_protection(box.vcpu)
    return Resume.GUEST


@machine
def handle_cache_instruction(box: Box) -> Resume:
    """INVD is never executed (it would lose others' writes), and WBINVD has nothing to do: no device of the box bypasses the caches."""
    advance_instruction()
    return Resume.GUEST

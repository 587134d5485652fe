"""Instructions that a guest does not have, or that do nothing for it."""

from __future__ import annotations

from dsl.lang import machine
from vmm.box import Box
from vmm.engine import advance_instruction, inject_general_protection, inject_invalid_opcode
from vmm.vcpu import Resume


@machine
def handle_absent_instruction(box: Box) -> Resume:
    """VMX, SMX, SGX, MONITOR, MWAIT, RDRAND, RDSEED: hidden by CPUID, so #UD, whatever the ring."""
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

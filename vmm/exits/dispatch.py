"""Which exit goes to which handler: a table, lowered to direct branches, hottest first."""

from __future__ import annotations

from typing import Final

from dsl.lang import dispatch
from vmm.exits.absent_memory import handle_ept_violation
from vmm.exits.events import (
    handle_exception,
    handle_external_interrupt,
    handle_hlt,
    handle_interrupt_window,
    handle_preemption_timer,
)
from vmm.exits.hypercall import handle_hypercall
from vmm.exits.instructions import (
    handle_cache_instruction,
    handle_other_exit,
    handle_rdpmc,
)
from vmm.exits.io import handle_io
from vmm.exits.msr import handle_rdmsr, handle_wrmsr
from vmm.exits.registers import handle_control_register, handle_xsetbv
from vmm.exits.stop import (
    handle_entry_failure,
    handle_task_switch,
    handle_triple_fault,
)
from vmm.vcpu import Exit

ENTRIES: Final = {  # CPUID is not here: it always goes the hot way (vmm.vmx.hot); nor are absent instructions, which are the default's
    Exit.IO_INSTRUCTION: handle_io,
    Exit.PREEMPTION_TIMER: handle_preemption_timer,
    Exit.INTERRUPT_WINDOW: handle_interrupt_window,
    Exit.HLT: handle_hlt,
    Exit.VMCALL: handle_hypercall,
    Exit.WRMSR: handle_wrmsr,
    Exit.RDMSR: handle_rdmsr,
    Exit.EPT_VIOLATION: handle_ept_violation,
    Exit.CONTROL_REGISTER_ACCESS: handle_control_register,
    Exit.EXCEPTION_OR_NMI: handle_exception,
    Exit.EXTERNAL_INTERRUPT: handle_external_interrupt,
    Exit.XSETBV: handle_xsetbv,
    Exit.WBINVD_OR_WBNOINVD: handle_cache_instruction,
    Exit.INVD: handle_cache_instruction,
    Exit.RDPMC: handle_rdpmc,
    Exit.TRIPLE_FAULT: handle_triple_fault,
    Exit.TASK_SWITCH: handle_task_switch,
    Exit.INVALID_GUEST_STATE: handle_entry_failure,
    Exit.MSR_LOADING: handle_entry_failure,
    Exit.MACHINE_CHECK_DURING_ENTRY: handle_entry_failure,
}
HANDLERS: Final = dispatch(ENTRIES, default=handle_other_exit)

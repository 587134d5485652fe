"""What holds for each program: its stacks, the homes of its privileged instructions, the MSRs that it may write.

A new entry point, a new privileged instruction or a new MSR needs a row here, which makes it a decision that somebody reads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from boot.main import STACK_SIZE as LOADER_STACK_SIZE
from dsl.hw import x86
from pipeline.audit.instructions import Allowed
from pipeline.audit.stack import Stack
from vmm.cpu import MAIN_STACK_SIZE, STACK_SIZE

HARDWARE_FRAME: Final = (
    48  # SS, RSP, RFLAGS and CS, and what aligns them to 16 bytes: below them RIP, which counts as a return address
)
X2APIC: Final = range(0x800, 0x840)  # the local APIC's registers, as MSRs
REFILLED_SIZE: Final = 8 + 32 * 8  # a return address, and one for each return that the processor predicts
X2APIC_COMMAND: Final = 0x830  # parks the other processors
MONITOR_INTERRUPTS: Final = (("vmm.interrupts.interrupt_stubs", HARDWARE_FRAME),)
LOADER_FAULTS: Final = tuple(
    (f"boot.exceptions.on_{name}", HARDWARE_FRAME)
    for name in ("nmi", "invalid_opcode", "double_fault", "general_protection", "page_fault")
)
# where exits arrive, besides the handlers of vmm/exits/dispatch.py
HOT_PATHS: Final = ("vmm.vmx.entry.guest_exit", "vmm.vmx.hot.handle_hot_exit", "vmm.scheduler.handle_exit")


@dataclass(frozen=True)
class Rules:
    """One program's. declared: bytes of stack of functions whose loops push, which the audit cannot count."""

    stacks: tuple[Stack, ...]
    allowed: Allowed
    declared: dict[str, int] = field(default_factory=dict)


MONITOR_STACKS: Final = (
    Stack("main", MAIN_STACK_SIZE, (("vmm.main.start", 0), ("vmm.main.main", 8)), MONITOR_INTERRUPTS),
    Stack(
        "exit",
        STACK_SIZE,
        (("vmm.vmx.entry.guest_exit", 0), ("vmm.vmx.entry.resume_guest", 0), ("vmm.vmx.entry.launch_guest", 0)),
        MONITOR_INTERRUPTS,
    ),
    # NMI, double fault and machine check each have a stack of their own; a fault in their handlers comes on the same one
    Stack("interrupt", STACK_SIZE, MONITOR_INTERRUPTS, MONITOR_INTERRUPTS),
)
LOADER_STACKS: Final = (
    Stack("main", LOADER_STACK_SIZE, (("boot.main.start", 0), ("boot.main.main", 8)), LOADER_FAULTS),
)
# UEFI gives 128 KiB; what its own services take of it is theirs to know, so a sixteenth is ours at most
APPLICATION_STACKS: Final = (
    Stack("firmware", 8192, (("boot.uefi.start", 0),)),
    Stack(
        "main",
        LOADER_STACK_SIZE,
        (("boot.uefi.landed", 0), ("boot.uefi.body", 0), ("boot.main.main", 8)),
        LOADER_FAULTS,
    ),
)
MONITOR_MSRS: Final = frozenset(
    (
        x86.IA32_APIC_BASE, x86.IA32_FEATURE_CONTROL, x86.IA32_SPEC_CTRL, x86.IA32_PRED_CMD, x86.IA32_FLUSH_CMD, x86.IA32_STAR,
        x86.IA32_LSTAR, x86.IA32_CSTAR, x86.IA32_FMASK, x86.IA32_GS_BASE, x86.IA32_KERNEL_GS_BASE, x86.IA32_TSC_AUX, x86.IA32_XSS, *X2APIC,
    )
)  # fmt: skip
MONITOR_HOMES: Final = {
    "cli": ("vmm/apic.py", "vmm/interrupts.py"),
    "sti": ("vmm/apic.py",),
    "hlt": ("vmm/apic.py", "vmm/interrupts.py"),
    "iretq": ("vmm/interrupts.py",),
    "lgdt": ("vmm/cpu.py",),
    "lidt": ("vmm/cpu.py",),
    "ltr": ("vmm/cpu.py",),
    "retfq": ("vmm/cpu.py",),
    "invlpg": ("vmm/address_space.py",),
    "wrmsr": ("vmm/apic.py", "vmm/cpu.py", "vmm/switch.py", "vmm/vmx/capability.py"),
    "xsetbv": ("vmm/exits/cpuid.py", "vmm/exits/registers.py", "vmm/switch.py"),
    "mov to control register": (
        "vmm/address_space.py",
        "vmm/engine.py",
        "vmm/exits/cpuid.py",
        "vmm/exits/events.py",
        "vmm/switch.py",
    ),
    "vmxon": ("vmm/engine.py",),
    "vmxoff": ("vmm/engine.py",),
    "vmclear": ("vmm/engine.py", "vmm/vmx/vmcs.py"),
    "vmptrld": ("vmm/engine.py", "vmm/vmx/vmcs.py", "vmm/vmx/guest_state.py"),
    "vmlaunch": ("vmm/vmx/entry.py",),
    "vmresume": ("vmm/vmx/entry.py",),
    "invept": ("vmm/vmx/ept.py",),
    "invvpid": ("vmm/vmx/ept.py",),
}
LOADER_HOMES: Final = {
    "cli": ("boot/leave.py", "boot/output.py"),
    "hlt": ("boot/output.py",),
    "lidt": ("boot/exceptions.py",),
    "wrmsr": ("boot/quiet.py",),
    "mov to control register": ("boot/leave.py",),
}
APPLICATION_HOMES: Final = {
    **LOADER_HOMES,
    "cli": (*LOADER_HOMES["cli"], "boot/uefi.py"),
    "hlt": (*LOADER_HOMES["hlt"], "boot/firmware.py", "boot/uefi.py"),
    "lgdt": ("boot/uefi.py",),
    "retfq": ("boot/uefi.py",),
    "wrmsr": ("boot/quiet.py", "boot/uefi.py"),
    "mov to control register": (*LOADER_HOMES["mov to control register"], "boot/uefi.py"),
}
RULES: Final = {
    "loader": Rules(LOADER_STACKS, Allowed(LOADER_HOMES, frozenset((X2APIC_COMMAND,)))),
    "UEFI loader": Rules(
        APPLICATION_STACKS,
        Allowed(
            APPLICATION_HOMES,
            frozenset((X2APIC_COMMAND, x86.IA32_EFER)),
            indirect=("boot/firmware.py", "boot/uefi_disk.py"),  # efi_call
        ),
    ),
    "monitor": Rules(
        MONITOR_STACKS,
        Allowed(
            MONITOR_HOMES,
            MONITOR_MSRS,
            once=("vmxon", "vmxoff", "vmlaunch", "vmresume", "iretq", "ltr"),
            computed=("vmm/apic.py",),  # apic_write: X2APIC_BASE plus a register's offset
        ),
        declared={"vmm.vmx.entry.return_to_run_loop": REFILLED_SIZE},
    ),
}

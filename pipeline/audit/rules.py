"""What holds for each program: its stacks, the homes of its privileged instructions, the MSRs that it may write.

A new entry point, a new privileged instruction or a new MSR needs a row here, which makes it a decision that somebody reads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from boot.main import STACK_SIZE as LOADER_STACK_SIZE
from dsl.hw import x86
from dsl.std.edwards25519_tables import ENTRIES
from pipeline.audit.exits import Exits
from pipeline.audit.instructions import Allowed
from pipeline.audit.stack import Stack
from vmm.cpu import MAIN_STACK_SIZE, STACK_SIZE

HARDWARE_FRAME: Final = (
    48  # SS, RSP, RFLAGS and CS, and what aligns them to 16 bytes: below them RIP, which counts as a return address
)
X2APIC: Final = range(0x800, 0x840)  # the local APIC's registers, as MSRs
REFILLED_RETURNS: Final = 32  # that the processor predicts
REFILLED_SIZE: Final = 8 + REFILLED_RETURNS * 8  # a return address, and one for each
X2APIC_COMMAND: Final = 0x830  # parks the other processors
MONITOR_INTERRUPTS: Final = (("vmm.interrupts.interrupt_stubs", HARDWARE_FRAME),)
LOADER_FAULTS: Final = tuple(
    (f"boot.exceptions.on_{name}", HARDWARE_FRAME)
    for name in ("nmi", "invalid_opcode", "double_fault", "general_protection", "page_fault")
)


@dataclass(frozen=True)
class Rules:
    """One program's. declared: bytes of stack of functions whose loops push, which the audit cannot count."""

    stacks: tuple[Stack, ...]
    allowed: Allowed
    declared: dict[str, int] = field(default_factory=dict)
    has_guests: bool = False  # whose vector registers are in the processor: see regions.py


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
    "load of a segment register": ("vmm/cpu.py",),
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
    "int": ("vmm/interrupts.py",),
    "xrstor64": ("vmm/switch.py",),
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
    "load of a segment register": ("boot/uefi.py",),
    "wrmsr": ("boot/quiet.py", "boot/uefi.py"),
    "mov to control register": (*LOADER_HOMES["mov to control register"], "boot/uefi.py"),
}
HASHING: Final = ("dsl/std/sha256_bulk.py",)  # by a kernel, in the loader alone: there no guest owns the XMM registers
RULES: Final = {
    "loader": Rules(LOADER_STACKS, Allowed(LOADER_HOMES, frozenset((X2APIC_COMMAND,)), vectors=HASHING)),
    "UEFI loader": Rules(
        APPLICATION_STACKS,
        Allowed(
            APPLICATION_HOMES,
            frozenset((X2APIC_COMMAND, x86.IA32_EFER)),
            indirect=("boot/firmware.py", "boot/uefi_disk.py", "boot/uefi_log.py"),  # efi_call
            vectors=HASHING,
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
        has_guests=True,
    ),
}
EXITS: Final = Exits(
    roots={
        "vmm.vmx.entry.guest_exit": 8_000,
        "vmm.vmx.hot.handle_hot_exit": 7_900,  # of a serial port that fetches 16 bytes; CPUID takes a hundredth
        "vmm.scheduler.run_once": 80_000_000,
    },
    handlers={
        "vmm.exits.io.handle_io": 8_800,
        "vmm.exits.events.handle_preemption_timer": 10,
        "vmm.exits.events.handle_interrupt_window": 20,
        "vmm.exits.events.handle_hlt": 60,
        "vmm.exits.hypercall.handle_hypercall": 78_000_000,
        "vmm.exits.msr.handle_wrmsr": 270,
        "vmm.exits.msr.handle_rdmsr": 220,
        "vmm.exits.absent_memory.handle_ept_violation": 5_700,
        "vmm.exits.registers.handle_control_register": 100,
        "vmm.exits.events.handle_exception": 120,
        "vmm.exits.events.handle_external_interrupt": 50,
        "vmm.exits.registers.handle_xsetbv": 110,
        "vmm.exits.instructions.handle_cache_instruction": 50,
        "vmm.exits.instructions.handle_rdpmc": 40,
        "vmm.exits.instructions.handle_other_exit": 70,
        "vmm.exits.stop.handle_triple_fault": 50,
        "vmm.exits.stop.handle_task_switch": 50,
        "vmm.exits.stop.handle_entry_failure": 50,
        "vmm.exits.hypercall.call_log": 40_000,
        "vmm.exits.hypercall.call_endorse": 15_000_000,
        "vmm.exits.hypercall.call_random": 78_000_000,
        "vmm.exits.hypercall.call_get_id": 250,
        "vmm.exits.hypercall.call_version": 10,
        "vmm.exits.hypercall.call_yield": 10,
        "vmm.exits.hypercall.call_evidence": 210,
        "vmm.exits.hypercall.call_unknown": 10,
    },
    listings={
        "vmm.vmx.entry.return_to_run_loop": REFILLED_RETURNS // 4,
        "dsl.std.edwards25519.select_entry": ENTRIES - 1,
        "dsl.std.sha256.compress": 5,  # six times eight rounds that make words, then two; four times four words
        "dsl.std.sha512.compress": 7,
    },
)

"""Every special instruction: a typed function, its row for the compiler, its model under CPython.

The row stands in the decorator (see dsl.lang.instruction); the body is the model, which acts on the current Machine.
SDM Vol. 2 is the authority on each.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar

from dsl.lang.addresses import HostVirtual
from dsl.lang.failure import CheckFailed, MachineError
from dsl.lang.instruction import Field, lowers_to
from dsl.lang.model import current_machine
from dsl.lang.record import Record
from dsl.lang.words import Word, u8, u16, u32, u64

W = TypeVar("W", bound=Word)
_INTERRUPTS = 1 << 9  # RFLAGS.IF
_FS_BASE, _GS_BASE = 0xC000_0100, 0xC000_0101


# Identification, model-specific registers, time


class CpuidResult(Record):
    """The four registers CPUID gives."""

    eax: u32
    ebx: u32
    ecx: u32
    edx: u32


@lowers_to("cpuid", "leaf:32@rax subleaf:32@rcx -> eax:32@rax ebx:32@rbx ecx:32@rcx edx:32@rdx")
def cpuid(leaf: u32, subleaf: u32) -> CpuidResult:
    """CPUID. The model answers from machine.cpuid[leaf, subleaf]."""
    row = current_machine().cpuid.get((int(leaf), int(subleaf)))
    if row is None:
        raise MachineError(f"CPUID {leaf:#x}.{subleaf:#x} is not in machine.cpuid")
    return CpuidResult(*(u32(register) for register in row))


@lowers_to("rdmsr; shl rdx, 32; or rax, rdx", "msr:32@rcx -> value:64@rax", loses="rdx flags")
def rdmsr(msr: u32) -> u64:
    """Read a model-specific register. One that does not exist is #GP."""
    return u64(current_machine().read_msr(int(msr)))


@lowers_to("mov rdx, rax; shr rdx, 32; wrmsr", "msr:32@rcx value:64@rax", loses="rdx flags", memory="rw")
def wrmsr(msr: u32, value: u64) -> None:
    """Write a model-specific register."""
    current_machine().write_msr(int(msr), int(value))


@lowers_to("rdtsc; shl rdx, 32; or rax, rdx", "-> value:64@rax", loses="rdx flags")
def rdtsc() -> u64:
    """The time-stamp counter. The model's advances by one each time."""
    cpu = current_machine().cpu
    cpu.time += 1
    return u64(cpu.time)


# Ports


@lowers_to("in al, dx", "port:16@rdx -> value:8@rax")
def in8(port: u16) -> u8:
    """Read a byte from a port."""
    return u8(current_machine().read_port(int(port), 8))


@lowers_to("in ax, dx", "port:16@rdx -> value:16@rax")
def in16(port: u16) -> u16:
    """Read two bytes from a port."""
    return u16(current_machine().read_port(int(port), 16))


@lowers_to("in eax, dx", "port:16@rdx -> value:32@rax")
def in32(port: u16) -> u32:
    """Read four bytes from a port."""
    return u32(current_machine().read_port(int(port), 32))


@lowers_to("out dx, al", "port:16@rdx value:8@rax")
def out8(port: u16, value: u8) -> None:
    """Write a byte to a port."""
    current_machine().write_port(int(port), 8, int(value))


@lowers_to("out dx, ax", "port:16@rdx value:16@rax")
def out16(port: u16, value: u16) -> None:
    """Write two bytes to a port."""
    current_machine().write_port(int(port), 16, int(value))


@lowers_to("out dx, eax", "port:16@rdx value:32@rax")
def out32(port: u16, value: u32) -> None:
    """Write four bytes to a port."""
    current_machine().write_port(int(port), 32, int(value))


# Interrupts and waiting


@lowers_to("hlt", memory="rw")
def hlt() -> None:
    """Wait for an interrupt. The model calls machine.wake."""
    current_machine().halt()


@lowers_to("cli", memory="rw")
def cli() -> None:
    """Clear RFLAGS.IF."""
    current_machine().cpu.rflags &= ~_INTERRUPTS


@lowers_to("sti", memory="rw")
def sti() -> None:
    """Set RFLAGS.IF; it acts after the next instruction."""
    current_machine().cpu.rflags |= _INTERRUPTS


@lowers_to("sti; hlt", memory="rw")
def sti_hlt() -> None:
    """Set RFLAGS.IF and wait; no interrupt is taken between the two."""
    sti()
    current_machine().halt()


@lowers_to("pause")
def pause() -> None:
    """Tell the CPU that this is a waiting loop."""


@lowers_to("int3", memory="rw")
def int3() -> None:
    """Raise #BP."""
    raise MachineError("INT3, and this machine has no debugger")


@lowers_to("pushfq; pop {value}", "-> value:64")
def read_rflags() -> u64:
    """RFLAGS. Only its system flags mean anything here."""
    return u64(current_machine().cpu.rflags)


# Control and debug registers


def _reads(register: str) -> Callable[[], u64]:
    """The function that reads a control or debug register; the model keeps them by number."""

    def read() -> u64:
        cpu = current_machine().cpu
        return u64((cpu.control if register.startswith("cr") else cpu.debug)[int(register[2:])])

    read.__name__, read.__doc__ = f"read_{register}", f"Read {register.upper()}."
    return lowers_to(f"mov {{value}}, {register}", "-> value:64")(read)


def _writes(register: str, memory: str = "") -> Callable[[u64], None]:
    """The function that writes one. memory: "rw" if it changes what addresses mean."""

    def write(value: u64) -> None:
        cpu = current_machine().cpu
        (cpu.control if register.startswith("cr") else cpu.debug)[int(register[2:])] = int(value)

    write.__name__, write.__doc__ = f"write_{register}", f"Write {register.upper()}."
    return lowers_to(f"mov {register}, {{value}}", "value:64", memory=memory)(write)


read_cr0, write_cr0 = _reads("cr0"), _writes("cr0", "rw")
read_cr2, write_cr2 = _reads("cr2"), _writes("cr2")  # the address of the last page fault
read_cr3, write_cr3 = (
    _reads("cr3"),
    _writes("cr3", "rw"),
)  # the root of the page tables; drops translations that are not global
read_cr4, write_cr4 = _reads("cr4"), _writes("cr4", "rw")
read_cr8, write_cr8 = _reads("cr8"), _writes("cr8")  # the task priority
read_dr0, write_dr0 = _reads("dr0"), _writes("dr0")
read_dr1, write_dr1 = _reads("dr1"), _writes("dr1")
read_dr2, write_dr2 = _reads("dr2"), _writes("dr2")
read_dr3, write_dr3 = _reads("dr3"), _writes("dr3")
read_dr6, write_dr6 = _reads("dr6"), _writes("dr6")  # the debug status
read_dr7, write_dr7 = _reads("dr7"), _writes("dr7")  # the debug control


# Segments and descriptor tables. A descriptor table's place is a packed Struct: u16 limit, u64 base.


def _load_table(name: str, pointer: HostVirtual) -> None:
    machine = current_machine()
    machine.cpu.tables[name] = machine.memory.read(int(pointer), 10)


def _store_table(name: str, pointer: HostVirtual) -> None:
    machine = current_machine()
    machine.memory.write(int(pointer), machine.cpu.tables.get(name, bytes(10)))


@lowers_to("lgdt [{pointer}]", "pointer:64", memory="r")
def lgdt(pointer: HostVirtual) -> None:
    """Load GDTR from the limit and base at pointer."""
    _load_table("gdtr", pointer)


@lowers_to("lidt [{pointer}]", "pointer:64", memory="r")
def lidt(pointer: HostVirtual) -> None:
    """Load IDTR from the limit and base at pointer."""
    _load_table("idtr", pointer)


@lowers_to("sgdt [{pointer}]", "pointer:64", memory="w")
def sgdt(pointer: HostVirtual) -> None:
    """Store GDTR's limit and base at pointer."""
    _store_table("gdtr", pointer)


@lowers_to("sidt [{pointer}]", "pointer:64", memory="w")
def sidt(pointer: HostVirtual) -> None:
    """Store IDTR's limit and base at pointer."""
    _store_table("idtr", pointer)


@lowers_to("ltr ax", "selector:16@rax", memory="rw")
def ltr(selector: u16) -> None:
    """Load the task register; the TSS becomes busy."""
    current_machine().cpu.selectors["tr"] = int(selector)


@lowers_to("lldt ax", "selector:16@rax", memory="r")
def lldt(selector: u16) -> None:
    """Load the local descriptor table register; 0: none."""
    current_machine().cpu.selectors["ldtr"] = int(selector)


@lowers_to("mov ds, ax; mov es, ax; mov ss, ax; mov fs, ax; mov gs, ax", "selector:16@rax", memory="r")
def load_data_segments(selector: u16) -> None:
    """Load DS, ES, SS, FS and GS with one selector. The bases of FS and GS become the descriptor's: set GS base after this."""
    cpu = current_machine().cpu
    cpu.selectors.update(dict.fromkeys(("ds", "es", "ss", "fs", "gs"), int(selector)))
    cpu.msrs[_FS_BASE] = cpu.msrs[_GS_BASE] = 0


# The far return pops its own offset and the selector; lea skips the two instructions after it (1 and 2 bytes).
@lowers_to(
    "movzx ecx, cx; push rcx; lea rax, [rip + 3]; push rax; retfq", "selector:16@rcx", loses="rax rcx", memory="r"
)
def reload_code_segment(selector: u16) -> None:
    """Load CS, and go on at the next instruction."""
    current_machine().cpu.selectors["cs"] = int(selector)


@lowers_to(f"mov rdx, rax; shr rdx, 32; mov ecx, {_GS_BASE:#x}; wrmsr", "base:64@rax", loses="rcx rdx flags")
def write_gs_base(base: HostVirtual) -> None:
    """Set the base of GS: where this CPU's per-CPU object lies."""
    current_machine().write_msr(_GS_BASE, int(base))


@lowers_to("mov {value}, qword ptr gs:[{offset}]", "offset:64 -> value:64", memory="r")
def read_gs_u64(offset: u64) -> u64:
    """The u64 at this offset from the base of GS."""
    machine = current_machine()
    return u64(machine.memory.load(machine.gs_base + int(offset), 8))


# Caches, translations, order


@lowers_to("invlpg [{address}]", "address:64", memory="rw")
def invlpg(address: HostVirtual) -> None:
    """Drop the translation of one page."""


@lowers_to("wbinvd", memory="rw")
def wbinvd() -> None:
    """Write back and empty all caches."""


@lowers_to("clflush [{address}]", "address:64", memory="rw")
def clflush(address: HostVirtual) -> None:
    """Write back and drop one cache line."""


@lowers_to("mfence", memory="rw")
def mfence() -> None:
    """Order all loads and stores."""


@lowers_to("lfence", memory="r")
def lfence() -> None:
    """Order loads; nothing after it starts before it."""


@lowers_to("sfence", memory="w")
def sfence() -> None:
    """Order stores."""


@lowers_to("push rax; verw word ptr [rsp]; pop rax", "selector:16@rax", loses="rax flags", memory="r")
def verw(selector: u16) -> None:
    """Clear the CPU's fill buffers (MDS). Only the form with a memory operand does; the selector is a valid writable one."""


# Extended state


@lowers_to("xgetbv; shl rdx, 32; or rax, rdx", "index:32@rcx -> value:64@rax", loses="rdx flags")
def xgetbv(index: u32) -> u64:
    """Read XCR0 (index 0)."""
    _require_xcr0(index)
    return u64(current_machine().cpu.xcr0)


@lowers_to("mov rdx, rax; shr rdx, 32; xsetbv", "index:32@rcx value:64@rax", loses="rdx flags")
def xsetbv(index: u32, value: u64) -> None:
    """Write XCR0 (index 0). A value the CPU does not allow is #GP."""
    _require_xcr0(index)
    if not int(value) & 1:
        raise MachineError(f"XSETBV of {value:#x}: bit 0 must be set")
    current_machine().cpu.xcr0 = int(value)


def _require_xcr0(index: u32) -> None:
    if index != 0:
        raise MachineError(f"XCR{index} is not modelled")


@lowers_to("mov rdx, rax; shr rdx, 32; xsave64 [{area}]", "area:64 mask:64@rax", loses="rdx flags", memory="w")
def xsave64(area: HostVirtual, mask: u64) -> None:
    """Save the components of mask to area, 64-byte aligned. The model has the legacy components only: 512 bytes and the header."""
    machine = current_machine()
    saved = int(mask) & machine.cpu.xcr0
    machine.memory.write(int(area), machine.cpu.extended)
    machine.memory.store(int(area) + 512, 8, machine.memory.load(int(area) + 512, 8) & ~int(mask) | saved)


@lowers_to("mov rdx, rax; shr rdx, 32; xrstor64 [{area}]", "area:64 mask:64@rax", loses="rdx flags", memory="r")
def xrstor64(area: HostVirtual, mask: u64) -> None:
    """Restore the components of mask from area."""
    machine = current_machine()
    if machine.memory.load(int(area) + 512, 8) & ~machine.cpu.xcr0:
        raise MachineError("XRSTOR: the header names components that XCR0 does not enable")
    machine.cpu.extended = machine.memory.read(int(area), 512)


# Random numbers


class RandomResult(Record):
    """A random number, and whether there was one."""

    value: u64
    ok: bool


def _random() -> RandomResult:
    number = current_machine().random()
    return RandomResult(u64(number or 0), number is not None)


@lowers_to("rdrand {value}; setc {ok:8}", "-> value:64 ok:1", loses="flags")
def rdrand() -> RandomResult:
    """A number from the CPU's generator; ok False: none was ready."""
    return _random()


@lowers_to("rdseed {value}; setc {ok:8}", "-> value:64 ok:1", loses="flags")
def rdseed() -> RandomResult:
    """A number from the CPU's entropy source; ok False: none was ready."""
    return _random()


# Memory in bulk and atomic memory. Addresses are the program's own.


@lowers_to("rep movsb", "target:64@rdi source:64@rsi count:64@rcx", loses="rdi rsi rcx", memory="rw")
def copy_bytes(target: HostVirtual, source: HostVirtual, count: u64) -> None:
    """Copy count bytes, first to last."""
    memory = current_machine().memory
    _copy(memory, int(target), int(source), int(count), 1)


@lowers_to("rep movsq", "target:64@rdi source:64@rsi count:64@rcx", loses="rdi rsi rcx", memory="rw")
def copy_words(target: HostVirtual, source: HostVirtual, count: u64) -> None:
    """Copy count words of 8 bytes, first to last."""
    memory = current_machine().memory
    _copy(memory, int(target), int(source), int(count), 8)


def _copy(memory: Any, target: int, source: int, count: int, size: int) -> None:
    """Copy first to last: where the target lies a little above the source, what was copied is copied on."""
    if source < target < source + count * size:
        for index in range(count):
            memory.write(target + index * size, memory.read(source + index * size, size))
    else:
        memory.write(target, memory.read(source, count * size))


@lowers_to("rep stosb", "target:64@rdi value:8@rax count:64@rcx", loses="rdi rcx", memory="w")
def fill_bytes(target: HostVirtual, value: u8, count: u64) -> None:
    """Set count bytes to value."""
    current_machine().memory.write(int(target), bytes([int(value)]) * int(count))


@lowers_to("rep stosq", "target:64@rdi value:64@rax count:64@rcx", loses="rdi rcx", memory="w")
def fill_words(target: HostVirtual, value: u64, count: u64) -> None:
    """Set count words of 8 bytes to value."""
    current_machine().memory.write(int(target), int(value).to_bytes(8, "little") * int(count))


def _exchange(address: HostVirtual, size: int, update: Any) -> int:
    memory = current_machine().memory
    previous = memory.load(int(address), size)
    memory.store(int(address), size, update(previous) & (1 << size * 8) - 1)
    return previous


@lowers_to("xchg qword ptr [{address}], rax", "address:64 value:64@rax -> previous:64@rax", memory="rw")
def atomic_exchange_u64(address: HostVirtual, value: u64) -> u64:
    """Put value at address; the previous value."""
    return u64(_exchange(address, 8, lambda _previous: int(value)))


@lowers_to(
    "lock xadd qword ptr [{address}], rax", "address:64 value:64@rax -> previous:64@rax", loses="flags", memory="rw"
)
def atomic_add_u64(address: HostVirtual, value: u64) -> u64:
    """Add value to the word at address; the previous value."""
    return u64(_exchange(address, 8, lambda previous: previous + int(value)))


@lowers_to(
    "lock xadd dword ptr [{address}], eax", "address:64 value:32@rax -> previous:32@rax", loses="flags", memory="rw"
)
def atomic_add_u32(address: HostVirtual, value: u32) -> u32:
    """Add value to the word at address; the previous value."""
    return u32(_exchange(address, 4, lambda previous: previous + int(value)))


@lowers_to(
    "lock cmpxchg qword ptr [{address}], {desired}",
    "address:64 expected:64@rax desired:64 -> previous:64@rax",
    loses="flags",
    memory="rw",
)
def atomic_compare_exchange_u64(address: HostVirtual, expected: u64, desired: u64) -> u64:
    """Put desired at address if the word there is expected; the previous value, which is expected if it was done."""
    return u64(_exchange(address, 8, lambda previous: int(desired) if previous == int(expected) else previous))


# VMX


class VmxStatus(Enum):
    """How a VMX instruction ended (SDM Vol. 3C, "VMX instruction reference: conventions")."""

    OK = u64(0)
    FAIL_INVALID = u64(1)  # CF: no current VMCS, or a bad address
    FAIL_VALID = u64(2)  # ZF: the VM-instruction error field says why


_STATUS = "; setc cl; setz al; movzx ecx, cl; movzx eax, al; lea rax, [rcx + rax*2]"


def _vmcs_address(pointer: HostVirtual) -> int | None:
    """The physical address at pointer, or None if no VMCS can be there."""
    address = current_machine().memory.load(int(pointer), 8)
    return None if address % 4096 or address == 0 or current_machine().cpu.vmx.region in (None, address) else address


@lowers_to(f"vmxon qword ptr [{{pointer}}]{_STATUS}", "pointer:64 -> status:64@rax", loses="rcx flags", memory="r")
def vmxon(pointer: HostVirtual) -> VmxStatus:
    """Enter VMX operation; pointer is that of a u64 with the physical address of the VMXON region."""
    machine = current_machine()
    address = machine.memory.load(int(pointer), 8)
    if not machine.cpu.control[4] & 1 << 13:
        raise MachineError("VMXON: CR4.VMXE is clear")
    if machine.cpu.vmx.region is not None or address % 4096:
        return VmxStatus.FAIL_INVALID
    machine.cpu.vmx.region = address
    return VmxStatus.OK


@lowers_to("vmxoff", memory="rw")
def vmxoff() -> None:
    """Leave VMX operation."""
    vmx = current_machine().cpu.vmx
    if vmx.region is None:
        raise MachineError("VMXOFF outside VMX operation")
    vmx.region = vmx.current = None


@lowers_to(f"vmclear qword ptr [{{pointer}}]{_STATUS}", "pointer:64 -> status:64@rax", loses="rcx flags", memory="rw")
def vmclear(pointer: HostVirtual) -> VmxStatus:
    """Write back a VMCS and make it not current, not launched; pointer as in vmxon."""
    vmx = current_machine().cpu.vmx
    address = _vmcs_address(pointer)
    if address is None:
        return VmxStatus.FAIL_INVALID if vmx.current is None else VmxStatus.FAIL_VALID
    vmx.structures.setdefault(address, {})
    vmx.current = None if vmx.current == address else vmx.current
    return VmxStatus.OK


@lowers_to(f"vmptrld qword ptr [{{pointer}}]{_STATUS}", "pointer:64 -> status:64@rax", loses="rcx flags", memory="rw")
def vmptrld(pointer: HostVirtual) -> VmxStatus:
    """Make a VMCS current; pointer as in vmxon."""
    vmx = current_machine().cpu.vmx
    address = _vmcs_address(pointer)
    if address is None:
        return VmxStatus.FAIL_INVALID if vmx.current is None else VmxStatus.FAIL_VALID
    vmx.structures.setdefault(address, {})
    vmx.current = address
    return VmxStatus.OK


# VMfail sets CF or ZF: the condition "be".


@lowers_to("vmread {value}, {field}", "field:64 -> value:64", loses="flags", stops_if="be")
def vmread(field: Field[W]) -> W:
    """Read a field of the current VMCS. A failure is a failed check.

    The field goes in as its encoding; of the value that comes out the low bits make the field's word.
    """
    vmx = current_machine().cpu.vmx
    if vmx.read is not None:
        value = vmx.read(field.encoding)
    else:
        value = None if vmx.current is None else vmx.structures[vmx.current].get(field.encoding, 0)
    if value is None:
        raise CheckFailed(f"VMREAD of {field.encoding:#06x} failed")
    return field.word._wrap(value)


@lowers_to("vmwrite {field}, {value}", "field:64 value:64", loses="flags", stops_if="be")
def vmwrite(field: Field[W], value: W) -> None:
    """Write a field of the current VMCS. A failure is a failed check. (The value goes in zero-extended.)"""
    if value.__class__ is not field.word:
        raise TypeError(f"{field!r} takes {field.word.__name__}, not {value.__class__.__name__}")
    vmx = current_machine().cpu.vmx
    if vmx.write is not None:
        done = vmx.write(field.encoding, int(value))
    elif done := vmx.current is not None:
        assert vmx.current is not None
        vmx.structures[vmx.current][field.encoding] = int(value)
    if not done:
        raise CheckFailed(f"VMWRITE of {field.encoding:#06x} failed")


def _invalidate(name: str, kind: u64, descriptor: HostVirtual) -> VmxStatus:
    machine = current_machine()
    machine.cpu.vmx.invalidations.append((name, int(kind), machine.memory.read(int(descriptor), 16)))
    return VmxStatus.OK


@lowers_to(
    f"invept rdx, xmmword ptr [{{descriptor}}]{_STATUS}",
    "kind:64@rdx descriptor:64 -> status:64@rax",
    loses="rcx flags",
    memory="rw",
)
def invept(kind: u64, descriptor: HostVirtual) -> VmxStatus:
    """Drop translations derived from EPT: kind 1 of one EPT pointer, 2 all; descriptor: 16 bytes, the pointer and zero."""
    return _invalidate("invept", kind, descriptor)


@lowers_to(
    f"invvpid rdx, xmmword ptr [{{descriptor}}]{_STATUS}",
    "kind:64@rdx descriptor:64 -> status:64@rax",
    loses="rcx flags",
    memory="rw",
)
def invvpid(kind: u64, descriptor: HostVirtual) -> VmxStatus:
    """Drop translations of a VPID: kind 0 one address, 1 one VPID, 2 all; descriptor: 16 bytes, u16 VPID, zeros, u64 address."""
    return _invalidate("invvpid", kind, descriptor)


# Hypercalls, for guests


class VmcallResult(Record):
    """What a hypercall gives back."""

    status: u64
    result: u64


@lowers_to(
    "vmcall",
    "number:64@rax a1:64@rdi a2:64@rsi a3:64@rdx a4:64@r10 a5:64@r8 -> status:64@rax result:64@rdi",
    loses="flags",
    memory="rw",
)
def vmcall(number: u64, a1: u64, a2: u64, a3: u64, a4: u64, a5: u64) -> VmcallResult:
    """Ask the monitor. The model calls machine.hypercall(number, arguments), which gives status and result."""
    hypercall = current_machine().hypercall
    if hypercall is None:
        raise MachineError("VMCALL, and this machine has no hypercall")
    status, result = hypercall(int(number), tuple(int(argument) for argument in (a1, a2, a3, a4, a5)))
    return VmcallResult(u64(status), u64(result))


# Firmware, before the loader leaves it


@lowers_to(
    "mov rbx, rsp; and rsp, -16; sub rsp, 48; mov [rsp + 32], r10; call rax; mov rsp, rbx",
    "function:64@rax a1:64@rcx a2:64@rdx a3:64@r8 a4:64@r9 a5:64@r10 -> status:64@rax",
    loses="rbx rcx rdx r8 r9 r10 r11 flags",
    memory="rw",
)
def efi_call(function: u64, a1: u64, a2: u64, a3: u64, a4: u64, a5: u64) -> u64:
    """Call a UEFI function at an address (Microsoft x64 convention), the language's only indirect call; its EFI_STATUS.

    The stack is aligned for it, with 32 bytes for its registers; arguments that it does not have are ignored. XMM registers are lost,
    which compiled code does not use. The model calls machine.callables[function](a1, ... a5), which gives the status.
    """
    called = current_machine().callables.get(int(function))
    if called is None:
        raise MachineError(f"efi_call of {function:#x}, which is not in machine.callables")
    return u64(called(*(int(argument) for argument in (a1, a2, a3, a4, a5))))

"""VMX operation of the model (SDM Vol. 3C, 25 to 31): the instructions, with their flags and error numbers; entries and exits.

What a guest does between an entry and the next exit is a script: a generator that yields exits and looks at the guest in between. Before
each entry all checks of the manual are made. A broken one is a failure of the test that names the rule, unless the test expects it.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from unicorn import x86_const as x86

from dsl.hw import vmx
from dsl.hw import x86 as manual
from dsl.lang import offset_of
from tests.model.entry_checks import check_controls, check_host, is_physical
from tests.model.guest_checks import check_guest
from tests.model.guest_reads import FRAME, GuestReads
from tests.model.machine import ADDRESS_BITS, REGISTERS, RFLAGS_ARITHMETIC, TIME_OVER, Machine, ModelFailure
from tests.model.processor import IA32_FEATURE_CONTROL, TIMER_SHIFT, TSC_HZ
from tests.model.sites import Memory, Site
from tests.model.vmcs import NAMES, Vmcs, is_read_only, width_of
from vmm.cpu import ExitFrame

FAIL_INVALID, FAIL_VALID = 1 << 0, 1 << 6  # CF, ZF
NO_POINTER = 0xFFFF_FFFF_FFFF_FFFF
GENERAL = [name for name in REGISTERS if name[0] == "r" and name not in ("rip", "rflags", "rsp")]
UNSET_ENTRIES_MOST = 63  # in a row, with the preemption timer as the last exit saved it
LONGEST_SLICE = 5_000_000 * (TSC_HZ // 1_000_000_000)  # TSC ticks: 5 ms
CR4_VMXE = 1 << 13
EFER_LMA = 1 << 10
EVENT_VALID, EVENT_HAS_ERROR = 1 << 31, 1 << 11  # of interruption information
NOISE_SEED = 28  # of what an exit leaves undefined: the same in every run, and in the reference
SPOILT = 2048  # bytes of a stack
NOISE = random.Random(NOISE_SEED).randbytes(2 * SPOILT)
SCRIPT_ENDED = vmx.ExitReason.TRIPLE_FAULT


@dataclass(frozen=True)
class Exit:
    """An exit, and what the guest changed before it. Fields and registers that are not named stay."""

    reason: vmx.ExitReason | int
    qualification: int = 0
    length: int = 0
    registers: dict[str, int] = field(default_factory=dict)
    fields: dict[Any, int] = field(default_factory=dict)
    interruption: int = 0
    error_code: int = 0
    vectoring: int = 0
    vectoring_error: int = 0
    guest_physical: int = 0
    ticks: int = 1000  # how long the guest ran; the preemption timer comes first when that is sooner


Script = Generator[Exit, None, None]


class Guest:
    """A guest as its script sees it: valid while the script runs, which is after an entry and before the exit."""

    def __init__(self, machine: VmxMachine, vmcs: Vmcs) -> None:
        self.machine = machine
        self.vmcs = vmcs
        self.registers: dict[str, int] = {}
        self.event = 0  # the entry's interruption information, 0 for none
        self.event_error = 0
        self.event_length = 0
        self.entries = 0
        self.waiting: Exit | None = None  # what the script wanted when the preemption timer came first

    def __getitem__(self, name: Any) -> int:
        """A general register by name, or a VMCS field."""
        return self.registers[name] if isinstance(name, str) else self.vmcs[name]

    def place(self, guest_physical: int) -> int:
        """Where a byte of the guest's memory lies in RAM."""
        place = mapped_address(self.machine, self.vmcs[vmx.EPT_POINTER], guest_physical)
        assert place is not None, f"guest-physical {guest_physical:#x} is not mapped"
        return place

    def write(self, guest_physical: int, data: bytes) -> None:
        """Write to the guest's memory, as the guest would."""
        for start, piece in pieces(guest_physical, len(data)):
            self.machine.write_physical(self.place(guest_physical + start), data[start : start + piece])

    def read(self, guest_physical: int, size: int) -> bytes:
        """Read the guest's memory."""
        return b"".join(
            self.machine.read_physical(self.place(guest_physical + start), piece)
            for start, piece in pieces(guest_physical, size)
        )

    @property
    def rip(self) -> int:
        """Where the guest goes on."""
        return self.vmcs[vmx.GUEST_RIP]


class VmxMachine(Machine):
    """The machine with VMX. `scripts` are the guests', in the order of their first entry."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.scripts: list[Callable[[Guest], Script]] = []
        self.expects_violation = False
        self.vmxon_region: int | None = None
        self.current: int | None = None
        self.regions: dict[int, Vmcs] = {}
        self.guests: dict[int, tuple[Guest, Script]] = {}
        self.written: set[int] = set()  # fields written since the last exit
        self.unset_entries = 0  # in a row, with the preemption timer as the last exit left it
        self.entry_count = 0
        self.violations: list[str] = []
        self.invalidations: list[tuple[str, int]] = []
        self.refused_accesses: list[tuple[str, int]] = []
        self.fresh_deadline = 0
        self.guest_reads = GuestReads(self.engine)
        self.noise = random.Random(NOISE_SEED)

    def on_vmx(self, site: Site) -> None:
        """Carry a VMX instruction out; RIP moves unless it entered a guest or faulted."""
        if site.mnemonic != "vmxon" and self.vmxon_region is None:
            self.fault(6, None)
            return
        done = INSTRUCTIONS[site.mnemonic](self, site)
        if done:
            self["rip"] = site.address + site.size

    # Outcomes

    def succeed(self) -> bool:
        """VMsucceed."""
        self["rflags"] = self["rflags"] & ~RFLAGS_ARITHMETIC
        return True

    def fail(self, number: int) -> bool:
        """VMfail: with a current VMCS the number goes there."""
        flag = FAIL_INVALID
        if self.current is not None:
            flag = FAIL_VALID
            self.regions[self.current][vmx.VM_INSTRUCTION_ERROR] = number
        self["rflags"] = self["rflags"] & ~RFLAGS_ARITHMETIC | flag
        return True

    # Instructions

    def operand(self, operand: str | Memory) -> int:
        """A 64-bit operand."""
        return self[operand] if isinstance(operand, str) else self.read_word(self.effective_address(operand))

    def pointer(self, site: Site) -> int:
        """The physical address that a memory operand holds."""
        return self.operand(site.operands[0])

    def revision_at(self, address: int) -> int:
        """The revision in a region, with bit 31."""
        return int(struct.unpack("<I", self.read_physical(address, 4))[0])

    def _vmxon(self, site: Site) -> bool:
        if self.vmxon_region is not None:
            return self.fail(15)
        if not self["cr4"] & CR4_VMXE:
            self.fault(6, None)
            return False
        fixed = ((self["cr0"], vmx.IA32_VMX_CR0_FIXED0), (self["cr4"], vmx.IA32_VMX_CR4_FIXED0))
        wrong = any(self.msrs[low] & ~value or value & ~self.msrs[low + 1] for value, low in fixed)
        if wrong or self.msrs[IA32_FEATURE_CONTROL] & 5 != 5:
            return self._general_protection()
        address = self.pointer(site)
        if (
            not is_physical(address)
            or self.revision_at(address) != self.processor.msrs[vmx.IA32_VMX_BASIC] & 0x7FFF_FFFF
        ):
            return self.fail(0)
        self.vmxon_region = address
        return self.succeed()

    def _vmxoff(self, _: Site) -> bool:
        self.vmxon_region = self.current = None
        return self.succeed()

    def _vmclear(self, site: Site) -> bool:
        address = self.pointer(site)
        if not is_physical(address):
            return self.fail(2)
        if address == self.vmxon_region:
            return self.fail(3)
        self.regions.setdefault(address, Vmcs(address)).is_launched = False
        if self.current == address:
            self.current = None
        return self.succeed()

    def _vmptrld(self, site: Site) -> bool:
        address = self.pointer(site)
        if not is_physical(address):
            return self.fail(9)
        if address == self.vmxon_region:
            return self.fail(10)
        if self.revision_at(address) != self.processor.msrs[vmx.IA32_VMX_BASIC] & 0x7FFF_FFFF:
            return self.fail(11)
        if address not in self.regions:
            raise ModelFailure(f"VMPTRLD of {address:#x}, a region that was never cleared")
        self.current = address
        return self.succeed()

    def _vmptrst(self, site: Site) -> bool:
        assert isinstance(site.operands[0], Memory)
        value = NO_POINTER if self.current is None else self.current
        self.write_physical(self.translate(self.effective_address(site.operands[0])), struct.pack("<Q", value))
        return self.succeed()

    def _vmread(self, site: Site) -> bool:
        encoding = self.operand(site.operands[1])
        if self.current is None:
            return self.fail(0)
        if encoding not in NAMES:
            self.refused_accesses.append(("vmread", encoding))
            return self.fail(12)
        value = self.regions[self.current].fields.get(encoding, 0)
        target = site.operands[0]
        if isinstance(target, str):
            self[target] = value
        else:
            self.write_physical(self.translate(self.effective_address(target)), struct.pack("<Q", value))
        return self.succeed()

    def _vmwrite(self, site: Site) -> bool:
        encoding, value = self.operand(site.operands[0]), self.operand(site.operands[1])
        if self.current is None:
            return self.fail(0)
        if encoding not in NAMES or is_read_only(encoding):
            self.refused_accesses.append(("vmwrite", encoding))
            return self.fail(12 if encoding not in NAMES else 13)
        self.regions[self.current].fields[encoding] = value & (1 << width_of(encoding)) - 1
        self.written.add(encoding)
        return self.succeed()

    def _invalidate(self, site: Site) -> bool:
        kind = self.operand(site.operands[0])
        assert isinstance(site.operands[1], Memory)
        capability = self.processor.msrs[vmx.IA32_VMX_EPT_VPID_CAP]
        supported = capability >> (24 if site.mnemonic == "invept" else 40)
        kinds = (1, 2) if site.mnemonic == "invept" else (0, 1, 2, 3)
        if kind not in kinds or not supported >> kind & 1:
            return self.fail(28)
        self.invalidations.append((site.mnemonic, kind))
        return self.succeed()

    # Entry

    def _vmlaunch(self, _: Site) -> bool:
        return self.enter(is_launch=True)

    def _vmresume(self, _: Site) -> bool:
        return self.enter(is_launch=False)

    def enter(self, is_launch: bool) -> bool:
        """VM entry: True if it failed and the monitor goes on after the instruction."""
        if self.current is None:
            return self.fail(0)
        vmcs = self.regions[self.current]
        if vmcs.is_launched == is_launch:
            return self.fail(4 if is_launch else 5)
        for number, check in ((7, check_controls), (8, check_host)):
            broken = list(check(vmcs, self.processor))
            if broken:
                self.report(broken)
                return self.fail(number)
        self.check_host_state(vmcs)
        broken = list(check_guest(vmcs, self.processor))
        if broken:
            self.report(broken)
            self.leave(vmcs, None, Exit(int(vmx.ExitReason.INVALID_GUEST_STATE.value) | 1 << 31))
            return False
        self.check_timer(vmcs)
        vmcs.is_launched = True
        self.entry_count += 1
        self.run_guest(vmcs)
        return False

    def report(self, broken: list[str]) -> None:
        """Broken rules."""
        self.violations += broken
        if not self.expects_violation:
            raise ModelFailure("VM entry: " + "; ".join(broken))

    def check_host_state(self, vmcs: Vmcs) -> None:
        """Our own rule: an exit brings the processor back to exactly the state that the monitor runs in."""
        engine = self.engine
        pairs = {
            "CR0": (vmcs[vmx.HOST_CR0], self["cr0"]),
            "CR3": (vmcs[vmx.HOST_CR3], self["cr3"]),
            "CR4": (vmcs[vmx.HOST_CR4], self["cr4"]),
            "GS base": (vmcs[vmx.HOST_GS_BASE], engine.reg_read(x86.UC_X86_REG_GS_BASE)),
            "CS": (vmcs[vmx.HOST_CS_SELECTOR], engine.reg_read(x86.UC_X86_REG_CS)),
            "SS": (vmcs[vmx.HOST_SS_SELECTOR], engine.reg_read(x86.UC_X86_REG_SS)),
            "TR base": (vmcs[vmx.HOST_TR_BASE], engine.reg_read(x86.UC_X86_REG_TR)[1]),
            "GDTR base": (vmcs[vmx.HOST_GDTR_BASE], engine.reg_read(x86.UC_X86_REG_GDTR)[1]),
            "IDTR base": (vmcs[vmx.HOST_IDTR_BASE], engine.reg_read(x86.UC_X86_REG_IDTR)[1]),
            "PAT": (vmcs[vmx.HOST_PAT], self.msrs[manual.IA32_PAT]),
            "EFER": (vmcs[vmx.HOST_EFER], self.msrs[manual.IA32_EFER]),
        }
        wrong = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        if wrong:
            raise ModelFailure(f"the host state of the VMCS is not the monitor's: {wrong}")

    def check_timer(self, vmcs: Vmcs) -> None:
        """Our own rule: each entry has a timer that ends within a slice. Where exits save it, a few entries may go on with it."""
        if not vmcs.bit(vmx.PIN_BASED_CONTROLS, vmx.PIN_PREEMPTION_TIMER):
            raise ModelFailure("an entry without the preemption timer")
        was_set = vmx.PREEMPTION_TIMER_VALUE.encoding in self.written
        self.unset_entries = 0 if was_set else self.unset_entries + 1
        if not was_set and not vmcs.bit(vmx.EXIT_CONTROLS, vmx.EXIT_SAVE_PREEMPTION_TIMER):
            raise ModelFailure("an entry with the preemption timer as the last exit left it, which did not save it")
        if self.unset_entries > UNSET_ENTRIES_MOST:
            raise ModelFailure(f"{self.unset_entries} entries in a row without the preemption timer being set anew")
        if vmcs[vmx.PREEMPTION_TIMER_VALUE] > LONGEST_SLICE >> TIMER_SHIFT:
            raise ModelFailure(
                f"the preemption timer is set to {vmcs[vmx.PREEMPTION_TIMER_VALUE]:#x}: longer than a slice"
            )

    def check_reads(self, vmcs: Vmcs) -> None:
        """Our own rule: see guest_reads."""
        twice = self.guest_reads.twice
        if twice and not twice <= shared_entries(self, vmcs):
            raise ModelFailure(f"a guest byte was read twice in one exit: physical {min(twice):#x}")
        self.guest_reads.clear()
        self.guest_reads.watch(mapped_frames(self, vmcs[vmx.EPT_POINTER]))

    def run_guest(self, vmcs: Vmcs) -> None:
        """Let the script of this guest run to its next exit."""
        if vmcs.address not in self.guests:
            guest = Guest(self, vmcs)
            if not self.scripts:
                raise ModelFailure("a guest is entered that has no script")
            self.guests[vmcs.address] = guest, self.scripts.pop(0)(guest)
        guest, script = self.guests[vmcs.address]
        self.check_reads(vmcs)
        guest.registers = {name: self[name] for name in GENERAL}
        guest.entries += 1
        information = vmcs[vmx.ENTRY_INTERRUPTION_INFORMATION]
        if guest.waiting is None:
            guest.event = 0
        if information >> 31:
            guest.event = information
            guest.event_error = vmcs[vmx.ENTRY_EXCEPTION_ERROR_CODE]
            guest.event_length = vmcs[vmx.ENTRY_INSTRUCTION_LENGTH]
        step = guest.waiting or next(script, Exit(SCRIPT_ENDED))
        guest.waiting = None
        left = vmcs[vmx.PREEMPTION_TIMER_VALUE] << TIMER_SHIFT
        if step.ticks > left and step.reason is not vmx.ExitReason.PREEMPTION_TIMER:
            guest.waiting = replace(step, ticks=step.ticks - left)
            step = Exit(vmx.ExitReason.PREEMPTION_TIMER, ticks=left)
        if self.clock.ticks > self.time_limit:
            self.stop(TIME_OVER)
        self.leave(vmcs, guest, step)

    def leave(self, vmcs: Vmcs, guest: Guest | None, step: Exit) -> None:
        """VM exit: exit fields, then the host state (SDM Vol. 3C, 28)."""
        for name, value in step.fields.items():
            vmcs[name] = value
        reason = step.reason if isinstance(step.reason, int) else int(step.reason.value)
        vmcs[vmx.EXIT_REASON] = reason
        vmcs[vmx.EXIT_QUALIFICATION] = step.qualification
        if reason >> 31 == 0:
            self.save_information(vmcs, step)
            vmcs[vmx.ENTRY_INTERRUPTION_INFORMATION] &= 0x7FFF_FFFF
        if vmcs.bit(vmx.EXIT_CONTROLS, vmx.EXIT_SAVE_PREEMPTION_TIMER):
            vmcs[vmx.PREEMPTION_TIMER_VALUE] = max(0, vmcs[vmx.PREEMPTION_TIMER_VALUE] - (step.ticks >> TIMER_SHIFT))
        self.clock.pass_ticks(step.ticks)
        self.written.clear()
        if guest is not None:
            guest.registers |= step.registers
            for name, value in guest.registers.items():
                self[name] = value
        self.load_host_state(vmcs)

    def save_information(self, vmcs: Vmcs, step: Exit) -> None:
        """28.2: what the exit says; noise in what it leaves undefined, and in an event that is not valid."""
        noise = self.noise.getrandbits
        is_memory = step.reason in (vmx.ExitReason.EPT_VIOLATION, vmx.ExitReason.EPT_MISCONFIGURATION)
        vmcs[vmx.VM_EXIT_INSTRUCTION_LENGTH] = step.length or noise(32)
        vmcs[vmx.VM_EXIT_INSTRUCTION_INFORMATION] = noise(32)
        vmcs[vmx.GUEST_PHYSICAL_ADDRESS] = step.guest_physical if is_memory else noise(64)
        vmcs[vmx.GUEST_LINEAR_ADDRESS] = noise(64)
        events = (
            (vmx.EXIT_INTERRUPTION_INFORMATION, step.interruption, vmx.EXIT_INTERRUPTION_ERROR_CODE, step.error_code),
            (vmx.IDT_VECTORING_INFORMATION, step.vectoring, vmx.IDT_VECTORING_ERROR_CODE, step.vectoring_error),
        )
        for information_field, information, error_field, error in events:
            is_valid, has_error = information & EVENT_VALID, information & EVENT_HAS_ERROR
            vmcs[information_field] = information if is_valid else noise(31)
            vmcs[error_field] = error if is_valid and has_error else noise(32)

    def load_host_state(self, vmcs: Vmcs) -> None:
        """28.5: what is constant was compared before the entry; the limits of the tables become 64 KiB."""
        for register in (x86.UC_X86_REG_GDTR, x86.UC_X86_REG_IDTR):
            _, base, _, _ = self.engine.reg_read(register)
            self.engine.reg_write(register, (0, base, 0xFFFF, 0))
        self["dr7"] = 0x400
        self["rflags"] = 2
        self["rsp"] = vmcs[vmx.HOST_RSP]
        self["rip"] = vmcs[vmx.HOST_RIP]
        self.spoil_stacks(vmcs[vmx.HOST_RSP])

    def spoil_stacks(self, frame: int) -> None:
        """Noise below the frame of the exit and below the run loop's stack pointer in it: what was used before is nobody's."""
        for top in (frame, self.read_word(frame + offset_of(ExitFrame, "saved_stack"))):
            start = (self.entry_count * 8 + 1) % SPOILT
            self.write_physical(self.translate(top - SPOILT), NOISE[start : start + SPOILT])


def pieces(address: int, size: int) -> Iterator[tuple[int, int]]:
    """Offset and size of each part of a range that lies within one frame."""
    start = 0
    while start < size:
        piece = min(size - start, FRAME - (address + start) % FRAME)
        yield start, piece
        start += piece


def mapped_address(machine: Machine, pointer: int, guest_physical: int) -> int | None:
    """Where a guest-physical address lies in RAM, by the EPT that EPTP names; None: nowhere."""
    table = pointer & ADDRESS_BITS
    for shift in (39, 30, 21, 12):
        (entry,) = struct.unpack("<Q", machine.read_physical(table + (guest_physical >> shift & 511) * 8, 8))
        if not entry & 7:
            return None
        if shift == 12 or entry >> 7 & 1:
            offset = (1 << shift) - 1
            return int(entry & ADDRESS_BITS & ~offset | guest_physical & offset)
        table = entry & ADDRESS_BITS
    raise AssertionError


def shared_entries(machine: Machine, vmcs: Vmcs) -> set[int]:
    """The bytes of the page table entries on the way both to the current instruction's page and to the next page: physical addresses."""
    found: list[set[int]] = []
    for linear in (vmcs[vmx.GUEST_RIP], vmcs[vmx.GUEST_RIP] + 4096):
        table, entries = vmcs[vmx.GUEST_CR3] & ADDRESS_BITS, set[int]()
        for shift in (39, 30, 21, 12):
            place = mapped_address(machine, vmcs[vmx.EPT_POINTER], table + (linear >> shift & 511) * 8)
            if place is None:
                break
            entries |= set(range(place, place + 8))
            table = int.from_bytes(machine.read_physical(place, 8), "little") & ADDRESS_BITS
        found.append(entries)
    return found[0] & found[1] if vmcs.bit(vmx.GUEST_EFER, EFER_LMA) else set()


def mapped_frames(machine: Machine, pointer: int) -> set[int]:
    """The frames of RAM that an EPT maps from guest-physical 0 on, without a gap."""
    found: set[int] = set()
    while (place := mapped_address(machine, pointer, len(found) * FRAME)) is not None and place not in found:
        found.add(place)
    return found


INSTRUCTIONS: dict[str, Callable[[VmxMachine, Site], bool]] = {
    "vmxon": VmxMachine._vmxon,
    "vmxoff": VmxMachine._vmxoff,
    "vmclear": VmxMachine._vmclear,
    "vmptrld": VmxMachine._vmptrld,
    "vmptrst": VmxMachine._vmptrst,
    "vmread": VmxMachine._vmread,
    "vmwrite": VmxMachine._vmwrite,
    "invept": VmxMachine._invalidate,
    "invvpid": VmxMachine._invalidate,
    "vmlaunch": VmxMachine._vmlaunch,
    "vmresume": VmxMachine._vmresume,
}

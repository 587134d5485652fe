"""The monitor's source under CPython, on the model of VT-x that the emitted monitor runs on: what the emitted code must do, step by step.

A box runs by one script in both worlds. At each entry all that the monitor keeps of the box, the fields of its VMCS, its registers and
the time must be the same; at the end all of the monitor's static objects and the box's memory too.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import vmm.main
from boot.handoff import DIRECT_MAP, MONITOR_BASE, Handoff
from dsl.hw import vmx
from dsl.lang import HostVirtual, address_of, model, size_of, u64
from dsl.lang.staging import Declaration
from tests.model import board
from tests.model.calls import Calls
from tests.model.guest_reads import FRAME
from tests.model.image import HANDOFF, MONITOR_PHYSICAL, RAM_SIZE, TABLES, physical_memory
from tests.model.machine import TIME_OVER, RandomWords
from tests.model.processor import Processor
from tests.model.start import machine_for
from tests.model.vmcs import NAMES, Vmcs
from tests.model.vmx_operation import NOISE_SEED, Exit, Guest, Script, VmxMachine, mapped_frames
from tests.vmm.images import TestBox, monitor
from vmm.box import Box
from vmm.interrupts import dispatch_vector
from vmm.vmx.entry import OUTCOME_NOT_LAUNCHED
from vmm.vmx.hot import HOT_RESUME, handle_hot_exit

PAGE = 4096
KEPT_BY_HOT_EXITS = ("rax", "rcx", "rdx", "rbx", "rsi", "rdi", "r8", "r9", "r10", "r11")
KEPT_BY_OTHERS = ("rbp", "r12", "r13", "r14", "r15")
GENERAL = KEPT_BY_HOT_EXITS + KEPT_BY_OTHERS
STACKS = {"vmm.cpu.BOOT_CPU", "vmm.cpu.MAIN_STACK"}
Observed = dict[str, Any]
BoxScript = Callable[[Guest], Script]


class ScriptEnd(Exception):
    """The script came to its end: so does the reference."""


@dataclass
class Reading:
    """How one world is looked at: the bytes at an address of the monitor."""

    read: Callable[[int, int], bytes]
    machine: VmxMachine
    dr6: Callable[[], int]

    @classmethod
    def of(cls, machine: VmxMachine) -> Reading:
        """The emitted monitor on the model."""
        return cls(
            lambda address, size: machine.read_physical(physical(address), size), machine, lambda: machine["dr6"]
        )

    def box(self) -> bytes:
        """The first Box."""
        first = int.from_bytes(self.read(address_of_symbol("vmm.box.BOXES"), 8), "little")
        return self.read(first, int(size_of(Box)))

    def observe(self, guest: Guest) -> Observed:
        """What must be the same at an entry."""
        vmcs = {NAMES[encoding]: value for encoding, value in guest.vmcs.fields.items() if value}
        return {
            "vmcs": vmcs,
            "registers": dict(guest.registers),
            "event": (guest.event, guest.event_error, guest.event_length),
            "box": self.box(),
            "ticks": self.machine.clock.ticks,
            "xcr0": self.machine.xcr0,
            "dr6": self.dr6(),
        }

    def observe_end(self, guest: Guest) -> Observed:
        """What must be the same at the end."""
        frames = sorted(mapped_frames(guest.machine, guest[vmx.EPT_POINTER]))
        memory = b"".join(guest.machine.read_physical(frame, FRAME) for frame in frames)
        statics = {name: self.read(address, size) for name, address, size in static_objects()}
        return {"memory": hashlib.sha256(memory).hexdigest(), "written": self.machine.ports.written, **statics}


def address_of_symbol(symbol: str) -> int:
    """Where the emitted monitor has an object or a function."""
    return monitor().linked.symbols[symbol].address


def static_objects() -> Iterator[tuple[str, int, int]]:
    """Name, address and size of the static objects in the emitted monitor that are compared."""
    for name, declaration in declarations():
        if name not in STACKS:
            yield name, address_of_symbol(name), declaration.size()


def declarations() -> Iterator[tuple[str, Declaration]]:
    """The objects declared in modules of the monitor's, by the symbols that it has for them."""
    for module in [module for name, module in sys.modules.items() if name.startswith(("vmm.", "dsl.std."))]:
        for name, value in vars(module).items():
            declaration = getattr(value, "__declaration__", None)
            symbol = f"{module.__name__}.{name}"
            if isinstance(declaration, Declaration) and declaration.is_writable and symbol in monitor().linked.symbols:
                yield symbol, declaration


class Cpu(model.Cpu):
    """A CPU whose TSC is the model's clock: each look takes as long as it does there."""

    clock: board.Clock

    @property
    def time(self) -> int:
        """The TSC."""
        return self.clock.ticks

    @time.setter
    def time(self, value: int) -> None:
        if hasattr(self, "clock"):
            self.clock.pass_ticks(100)


class PythonMachine(model.Machine):
    """A Machine where the monitor's objects and functions have the addresses of the emitted ones."""

    def __init__(self) -> None:
        super().__init__()
        self.placed: dict[Declaration, int] = {}

    def place(self, declaration: Declaration) -> int:
        """Where a declared object is: the monitor's as they were placed, tables anywhere."""
        return self.placed[declaration] if declaration in self.placed else super().place(declaration)

    def function_address(self, function: Any) -> int:
        """Where a function's code begins."""
        return address_of_symbol(f"{function.__module__}.{function.__name__}")


class AnyPort(dict[int, Any]):
    """Every port there is, answered by the model's."""

    def __init__(self, ports: board.Ports) -> None:
        self.ports = ports

    def __contains__(self, port: object) -> bool:
        return True

    def __getitem__(self, port: int) -> Any:
        return self

    def read(self, port: int, width: int) -> int:
        """IN."""
        return self.ports.read(port)

    def write(self, port: int, width: int, value: int) -> None:
        """OUT."""
        self.ports.write(port, value)


class AnyLeaf(dict[tuple[int, int], tuple[int, int, int, int]]):
    """CPUID of the model."""

    def __init__(self, processor: Processor, machine: model.Machine) -> None:
        self.processor, self.machine = processor, machine

    def get(self, key: tuple[int, int], default: Any = None) -> Any:
        """Answer a leaf and subleaf."""
        return self.processor.answer(*key, self.machine.cpu.xcr0)


class Registers:
    """A device's page of 32-bit registers."""

    def __init__(self, device: Any) -> None:
        self.device = device

    def read(self, offset: int, width: int) -> int:
        """Read one."""
        return int(self.device.read(offset))

    def write(self, offset: int, width: int, value: int) -> None:
        """Write one."""
        self.device.write(offset, value)


class ReferenceMachine(VmxMachine):
    """The model, where the monitor is Python. Guests, entries, exits and devices are the same code."""

    def __init__(self, box: TestBox, processor: Processor) -> None:
        self.processor = processor
        self.clock = board.Clock()
        self.ports = board.Ports(self.clock)
        self.apic = board.Apic(self.clock)
        self.io_apic = board.IoApic()
        self.random = RandomWords(1)
        self.registers: dict[str, int] = {}
        self.scripts, self.guests, self.regions, self.written = [], {}, {}, set()
        self.expects_violation, self.unset_entries, self.entry_count = False, 0, 0
        self.violations, self.time_limit, self.noise = [], 2**62, random.Random(NOISE_SEED)
        self.python = self.make_machine()
        self.load(box)

    def make_machine(self) -> PythonMachine:
        """The Machine that the monitor's functions run on."""
        machine = PythonMachine()
        cpu = Cpu()
        cpu.clock, cpu.msrs = self.clock, dict(self.processor.msrs)
        cpu.control |= {0: 0x8001_0033, 3: TABLES, 4: 1 << 5 | 3 << 9}
        cpu.vmx.write = self.write_field
        machine.cpus, machine.cpu, machine.random = [cpu], cpu, self.random
        machine.ports, machine.cpuid, machine.wake = AnyPort(self.ports), AnyLeaf(self.processor, machine), self.wake
        machine.memory.map_device(DIRECT_MAP + 0xFEE0_0000, PAGE, Registers(self.apic))
        machine.memory.map_device(DIRECT_MAP + 0xFEC0_0000, PAGE, Registers(self.io_apic))
        return machine

    def load(self, box: TestBox) -> None:
        """What the loader leaves, and each object where the emitted monitor has it."""
        memory = physical_memory(monitor().image, [box])
        self.python.memory.map(DIRECT_MAP, RAM_SIZE)
        for start in range(0, RAM_SIZE, PAGE):
            if (page := memory[start : start + PAGE]) != bytes(PAGE):
                self.python.memory.write(DIRECT_MAP + start, page)
        for name, declaration in declarations():
            self.python.placed[declaration] = address_of_symbol(name)
            self.python.memory.map(address_of_symbol(name), declaration.size())

    # What the model asks of its machine

    def __getitem__(self, name: str) -> int:
        return self.registers[name]

    def __setitem__(self, name: str, value: int) -> None:
        self.registers[name] = value

    def read_physical(self, address: int, size: int) -> bytes:
        """Bytes of RAM."""
        return self.python.memory.read(DIRECT_MAP + address, size)

    def write_physical(self, address: int, data: bytes) -> None:
        """Change RAM."""
        self.python.memory.write(DIRECT_MAP + address, data)

    def check_host_state(self, vmcs: Vmcs) -> None:
        """Compared with the emitted monitor's."""

    def check_reads(self, vmcs: Vmcs) -> None:
        """The emitted monitor's are checked."""

    def load_host_state(self, vmcs: Vmcs) -> None:
        """Python has no such state."""

    def write_field(self, encoding: int, value: int) -> bool:
        """VMWRITE."""
        assert encoding in NAMES
        state = self.python.cpu.vmx
        assert state.current is not None
        state.structures[state.current][encoding] = value
        self.written.add(encoding)
        return True

    def wake(self, _: model.Machine) -> None:
        """HLT: the timer comes."""
        end = self.apic.timer_end()
        assert end is not None
        self.clock.ticks = max(self.clock.ticks, end)
        dispatch_vector(u64(self.apic.timer_vector()))

    # In place of the stub between the run loop and the guest

    def enter_guest(self, vcpu: Any, frame: Any, is_launched: bool) -> u64:
        """Run the guest until an exit that is not hot."""
        state = self.python.cpu.vmx
        assert state.current is not None
        self.current = state.current
        vmcs = self.regions.setdefault(state.current, Vmcs(state.current, fields=state.structures[state.current]))
        assert vmcs.is_launched == is_launched
        frame.virtual_cpu = address_of(vcpu)
        for name in GENERAL:
            self[name] = int(getattr(vcpu.registers, name))
        while True:
            if frame.nmi_pending != 0:
                return u64(OUTCOME_NOT_LAUNCHED)
            self.xcr0 = self.python.cpu.xcr0
            self.enter(is_launch=not vmcs.is_launched)
            for name in KEPT_BY_HOT_EXITS:
                setattr(vcpu.registers, name, u64(self[name]))
            outcome = handle_hot_exit(vcpu)
            if outcome != HOT_RESUME:
                for name in KEPT_BY_OTHERS:
                    setattr(vcpu.registers, name, u64(self[name]))
                return outcome
            for name in KEPT_BY_HOT_EXITS:
                self[name] = int(getattr(vcpu.registers, name))

    def run_to_end(self) -> None:
        """Run the monitor from its entry to the end of the script."""
        with self.python, patch("vmm.engine.enter_guest", self.enter_guest):
            try:
                vmm.main.main(Handoff.at(HostVirtual(HANDOFF + DIRECT_MAP)))
            except ScriptEnd:
                return
        raise AssertionError(f"the reference ended by itself: {self.ports.serial.decode()}")


# --- The two worlds

EXPECTED: dict[
    str, list[Observed]
] = {}  # by script and seed; no cache of tests/mutation.py's to forget: no emitted code is in it


def expected_of(name: str, box: TestBox, script: BoxScript, processor: Processor) -> list[Observed]:
    """What is seen at each entry and at the end, under CPython."""
    if name not in EXPECTED:
        seen: list[Observed] = []
        machine = ReferenceMachine(box, processor)
        reading = Reading(machine.python.memory.read, machine, lambda: machine.python.cpu.debug[6])

        def observed(guest: Guest) -> Script:
            for step in script(guest):
                seen.append(reading.observe(guest))
                yield step
            seen.append(reading.observe(guest) | reading.observe_end(guest))
            raise ScriptEnd

        machine.scripts = [observed]
        machine.run_to_end()
        EXPECTED[name] = seen
    return EXPECTED[name]


def run_alike(
    name: str, box: TestBox, script: BoxScript, processor: Processor | None = None, calls_of: int | None = None
) -> None:
    """Run a box in both worlds; the emitted monitor must do what its source does. calls_of: as many exits, and each call a boundary."""
    expected = expected_of(name, box, script, processor or Processor())
    machine = machine_for([box], [], processor)
    machine.time_limit = 2**62
    reading = Reading.of(machine)
    ended = []

    def compared(guest: Guest) -> Script:
        steps: list[Exit] = []
        if calls_of is not None:
            Calls(machine)
        for number, step in enumerate(script(guest)):
            check(number, steps, expected[number], reading.observe(guest))
            if number == calls_of:
                ended.append(True)
                machine.stop(TIME_OVER)
            steps.append(step)
            yield step
        check(len(steps), steps, expected[-1], reading.observe(guest) | reading.observe_end(guest))
        ended.append(True)

    machine.scripts = [compared]
    machine.run()
    assert not machine.exceptions, machine.serial_text()
    assert ended, machine.serial_text()


def physical(address: int) -> int:
    """Where an address of the monitor lies in RAM."""
    return address - MONITOR_BASE + MONITOR_PHYSICAL if address >= MONITOR_BASE else address - DIRECT_MAP


def check(number: int, steps: list[Exit], expected: Observed, found: Observed) -> None:
    """Say where the two differ."""
    if expected != found:
        names = [name for name in expected if expected[name] != found[name]]
        differences = [f"{name}: {difference(expected[name], found[name])}" for name in names]
        raise AssertionError(f"entry {number}: {'; '.join(differences)}; after {steps[-1:]}")


def difference(expected: Any, found: Any) -> str:
    """Where two observations differ."""
    if isinstance(expected, bytes):
        places = [place for place, pair in enumerate(zip(expected, found, strict=True)) if pair[0] != pair[1]]
        return f"bytes {places[:8]}: expected {expected[places[0]]:#x}, found {found[places[0]]:#x}"
    if isinstance(expected, dict):
        keys = [key for key in {*expected, *found} if expected.get(key) != found.get(key)]
        return ", ".join(f"{key} expected {expected.get(key)}, found {found.get(key)}" for key in sorted(keys))
    return f"expected {expected}, found {found}"

"""The Machine that @machine functions run on under CPython: memory, ports, CPUs, randomness, and the trace of what they did.

    with Machine() as machine:
        machine.ports[0x3F8] = uart
        function(u64(1))

Objects declared at module level live in the current machine, each Machine having its own; frames are freed with their Python objects.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from dsl.lang.failure import MachineError
from dsl.lang.memory import Event, Memory

if TYPE_CHECKING:
    from dsl.lang.staging import Declaration

STATIC_BASE: Final = 0xFFFF_9000_0000_0000
TABLE_BASE: Final = 0xFFFF_A000_0000_0000
FRAME_BASE: Final = 0xFFFF_B000_0000_0000
FUNCTION_BASE: Final = 0xFFFF_C000_0000_0000
FRAME_SIZE: Final = 1 << 30
GS_BASE_MSR: Final = 0xC000_0101


class PortDevice(Protocol):
    """What answers at a port. Width is in bits."""

    def read(self, port: int, width: int) -> int:
        """The value IN gives."""

    def write(self, port: int, width: int, value: int) -> None:
        """Take an OUT."""


class Halted(Exception):
    """HLT, with nobody in the model to wake the CPU (Machine.wake)."""


@dataclass
class Cpu:
    """The state of one CPU that intrinsics reach. Plain numbers; registers that were never written are zero, MSRs unknown."""

    msrs: dict[int, int] = field(default_factory=dict)
    control: dict[int, int] = field(default_factory=lambda: {0: 0x8000_0011, 2: 0, 3: 0, 4: 0x20, 8: 0})
    debug: dict[int, int] = field(default_factory=lambda: {0: 0, 1: 0, 2: 0, 3: 0, 6: 0xFFFF_0FF0, 7: 0x400})
    xcr0: int = 1
    rflags: int = 2
    time: int = 0
    selectors: dict[str, int] = field(default_factory=dict)
    tables: dict[str, bytes] = field(default_factory=dict)
    extended: bytes = bytes(512)
    vmx: Vmx = field(default_factory=lambda: Vmx())


@dataclass
class Vmx:
    """VMX operation as vmxon, vmptrld, vmread and vmwrite see it. A VMCS is a dict from encoding to number, kept by physical address.

    read and write, if set, take the place of the dict: they get the encoding (and value), and return the value, or None for VMfail.
    """

    region: int | None = None
    current: int | None = None
    structures: dict[int, dict[int, int]] = field(default_factory=dict)
    read: Callable[[int], int | None] | None = None
    write: Callable[[int, int], bool] | None = None
    invalidations: list[tuple[str, int, bytes]] = field(default_factory=list)


class FrameSlot:
    """Memory of one object in a function's frame. It goes back when the last Python object that refers to it dies."""

    __slots__ = ("address", "machine", "size")

    def __init__(self, machine: Machine, address: int, size: int) -> None:
        self.machine, self.address, self.size = machine, address, size

    def __del__(self) -> None:
        self.machine._free_frames.setdefault(self.size, []).append(self.address)


class Machine:
    """One machine. random: a seed, for RDRAND and RDSEED; supplied: the bytes of supplied tables by name; image: base and end addresses."""

    def __init__(
        self,
        *,
        seed: int = 0,
        supplied: Mapping[str, bytes] | None = None,
        cpus: int = 1,
        image: tuple[int, int] = (0x100_0000, 0x110_0000),
        check_places: bytes = b"",
        check_files: bytes = b"",
    ) -> None:
        self.events: list[Event] = []
        self.memory = Memory(self.events.append)
        self.ports: dict[int, PortDevice | int] = {}
        self.cpus = [Cpu() for _ in range(cpus)]
        self.cpu = self.cpus[0]
        self.cpuid: dict[tuple[int, int], tuple[int, int, int, int]] = {}
        self.supplied = dict(supplied or {})
        self.image = image
        self.check_tables = {"places": check_places, "files": check_files}
        source = random.Random(seed)
        self.random: Callable[[], int | None] = lambda: source.getrandbits(64)  # or None: not ready
        self.wake: Callable[[Machine], None] | None = None  # called by HLT; returning is the interrupt
        self.hypercall: Callable[[int, tuple[int, ...]], tuple[int, int]] | None = None
        self.callables: dict[int, Callable[..., int]] = {}  # what efi_call may call, by address
        self._addresses: dict[object, int] = {}
        self._functions: dict[int, Any] = {}
        self._next = {"static": STATIC_BASE, "table": TABLE_BASE, "frame": FRAME_BASE, "function": FUNCTION_BASE}
        self._free_frames: dict[int, list[int]] = {}
        self.memory.map(FRAME_BASE, FRAME_SIZE)

    def __enter__(self) -> Self:
        _machines.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _machines.pop()

    # Memory objects

    def place(self, declaration: Declaration) -> int:
        """The address of a declared object in this machine; it is made at the first call."""
        if declaration not in self._addresses:
            arena = "static" if declaration.is_writable else "table"
            address = self._addresses[declaration] = self._bump(arena, declaration.size(), declaration.alignment())
            if declaration.is_writable:
                self.memory.map(address, declaration.size())
            else:
                self.memory.map_read_only(address, declaration.bytes(self.supplied))
        return self._addresses[declaration]

    def _bump(self, arena: str, size: int, align: int) -> int:
        address = -(-self._next[arena] // align) * align
        self._next[arena] = address + size
        return address

    def constant(self, content: bytes) -> int:
        """The address of these read-only bytes, one copy of each."""
        key = ("constant", content)
        if key not in self._addresses:
            self._addresses[key] = self._bump("table", len(content), 1)
            self.memory.map_read_only(self._addresses[key], content)
        return self._addresses[key]

    def frame(self, size: int, align: int) -> FrameSlot:
        """A zeroed object in the current function's frame."""
        room = -(-size // 16) * 16
        free = self._free_frames.get(room)
        address = free.pop() if free and free[-1] % align == 0 else self._bump("frame", room, max(align, 16))
        if address + room > FRAME_BASE + FRAME_SIZE:
            raise MachineError("the frames of this machine are full")
        self.memory.write(address, bytes(room))
        return FrameSlot(self, address, room)

    def function_address(self, function: Any) -> int:
        """An address that stands for a function; nothing is mapped there."""
        key = ("function", function)
        if key not in self._addresses:
            address = self._addresses[key] = self._bump("function", 16, 16)
            self._functions[address] = function
        return self._addresses[key]

    def function_at(self, address: int) -> Any:
        """The function whose address this is."""
        return self._functions[address]

    # What intrinsics reach

    @property
    def msrs(self) -> dict[int, int]:
        """The current CPU's MSRs."""
        return self.cpu.msrs

    def switch(self, number: int) -> None:
        """Make another CPU the current one."""
        self.cpu = self.cpus[number]

    def read_port(self, port: int, width: int) -> int:
        """IN: ask the port's device; a plain int answers itself."""
        device = self._port(port)
        value = device if isinstance(device, int) else device.read(port, width)
        if not 0 <= value < 1 << width:
            raise MachineError(f"port {port:#x} gave {value:#x} for {width} bits")
        self.events.append(Event("port_read", port, width, value))
        return value

    def write_port(self, port: int, width: int, value: int) -> None:
        """OUT: tell the port's device; a plain int is replaced."""
        self.events.append(Event("port_write", port, width, value))
        device = self._port(port)
        if isinstance(device, int):
            self.ports[port] = value
        else:
            device.write(port, width, value)

    def _port(self, port: int) -> PortDevice | int:
        if port not in self.ports:
            raise MachineError(f"no device at port {port:#x}: put one into machine.ports")
        return self.ports[port]

    def read_msr(self, number: int) -> int:
        """RDMSR on the current CPU."""
        if number not in self.cpu.msrs:
            raise MachineError(f"RDMSR of {number:#x}, which this machine does not have: put it into machine.msrs")
        value = self.cpu.msrs[number]
        self.events.append(Event("msr_read", number, 64, value))
        return value

    def write_msr(self, number: int, value: int) -> None:
        """WRMSR on the current CPU. FS, GS and KERNEL_GS base exist from the start, any other must be known."""
        self.events.append(Event("msr_write", number, 64, value))
        if number not in self.cpu.msrs and not GS_BASE_MSR - 1 <= number <= GS_BASE_MSR + 1:
            raise MachineError(f"WRMSR of {number:#x}, which this machine does not have: put it into machine.msrs")
        self.cpu.msrs[number] = value

    @property
    def gs_base(self) -> int:
        """Where GS points on the current CPU."""
        return self.cpu.msrs.get(GS_BASE_MSR, 0)

    def halt(self) -> None:
        """HLT: wait for `wake`; without one, Halted."""
        if self.wake is None:
            raise Halted("HLT, and this machine has no wake")
        self.wake(self)


_machines: Final[list[Machine]] = []


def current_machine() -> Machine:
    """The innermost machine that is running."""
    if not _machines:
        raise MachineError("no machine: wrap this in `with Machine() as machine:`")
    return _machines[-1]

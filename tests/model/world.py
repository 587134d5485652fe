"""A machine function called on the VMX model: in VMX operation, with a current VMCS and MSRs that the test decides and looks at."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Any

import unicorn as uc

from boot.handoff import DIRECT_MAP, MONITOR_BASE
from dsl.compiler.pipeline import Program, compile_function
from tests.execution.emulated import ARGUMENTS, SHOWN, show_instructions
from tests.model.image import MONITOR_PHYSICAL, RAM_SIZE, TABLES, page_tables
from tests.model.machine import REACHED, ModelFailure
from tests.model.processor import Processor
from tests.model.start import sites_of
from tests.model.vmcs import Vmcs
from tests.model.vmx_operation import CR4_VMXE, Guest, Script, VmxMachine
from tests.worlds import Argument, FailedCheck, World, flatten, plain_result

VMXON_REGION, REGION = 0x10_0000, 0x10_1000  # physical
STACK_TOP = DIRECT_MAP + 0x18_0000
BUFFERS = 0x80_0000  # physical; reached through the direct map
RETURN = MONITOR_BASE + 32  # inside the program's header, which nothing runs
INVALID_OPCODE = 6


@cache
def program_of(function: Callable[..., Any]) -> Program:
    """The function where the model's page tables have the monitor."""
    return compile_function(function, base=MONITOR_BASE)


class Called(VmxMachine):
    """The machine during one call. recent: addresses of the instructions that came last."""

    def __init__(self, program: Program, processor: Processor) -> None:
        self.program = program
        self.recent: deque[int] = deque(maxlen=SHOWN)
        self.checks = {program.base + offset: trap for offset, trap in program.linked.checks}
        memory = bytearray(RAM_SIZE)
        memory[MONITOR_PHYSICAL : MONITOR_PHYSICAL + len(program.image)] = program.image
        tables = page_tables(program.image)
        memory[TABLES : TABLES + len(tables)] = tables
        super().__init__(memory, processor, sites_of(program.image), program.symbols[program.entry][0])

    def _add_hooks(self) -> None:
        """The account of instructions comes first: those that the model carries out are in it."""
        self.engine.hook_add(uc.UC_HOOK_CODE, lambda _, address, __, ___: self.recent.append(address))
        super()._add_hooks()

    def fault(self, vector: int, error_code: int | None) -> None:
        """An exception: the program's, if it has an IDT; else the end of the call, and a failed check is told apart."""
        rip = self["rip"]
        if rip in self.checks and vector == INVALID_OPCODE:
            trap = self.checks[rip]
            raise FailedCheck(
                f"{self.program.entry}: a check failed at {trap.file}:{trap.line}\n{self.last_instructions()}"
            )
        if self.engine.reg_read(uc.x86_const.UC_X86_REG_IDTR)[1] == 0:
            raise ModelFailure(f"{self.program.entry}: vector {vector}, without an IDT\n{self.last_instructions()}")
        super().fault(vector, error_code)

    def last_instructions(self) -> str:
        """The last instructions of the call, each with its source line where that changes."""
        return show_instructions(self.program, list(self.recent))


class Vmx(World):
    """The VMX model, to be called with a machine function and its arguments; gives the result.

    vmcs: the current one, kept from call to call; processor: what CPUID and the MSRs say at the beginning of a call; scripts: of the guests
    that the function enters. After a call, `last` is the machine: its msrs, ports, registers by name.
    """

    def __init__(self) -> None:
        self.processor = Processor()
        self.vmcs = Vmcs(REGION)
        self.scripts: list[Callable[[Guest], Script]] = []
        self.last: Called | None = None

    def call(self, function: Callable[..., Any], *arguments: Argument) -> int:
        """Run it over copies of the arguments. Raises FailedCheck, and ModelFailure for what no processor allows."""
        machine = self.last = Called(program_of(function), self.processor)
        machine.scripts = list(self.scripts)
        machine["cr4"] |= CR4_VMXE
        machine.vmxon_region, machine.current, machine.regions = VMXON_REGION, REGION, {REGION: self.vmcs}
        places: list[int] = []

        def place(content: bytes) -> int:
            places.append(places[-1] + 0x10_000 if places else BUFFERS)
            assert len(content) <= 0x10_000, f"expected at most 64 KiB in one argument, found {len(content)} bytes"
            machine.write_physical(places[-1], content)
            return DIRECT_MAP + places[-1]

        components = flatten(function, arguments, place)
        for register, component in zip(ARGUMENTS, components, strict=False):
            machine.engine.reg_write(register, component)
        stack = [RETURN, *components[len(ARGUMENTS) :]]
        content = b"".join(word.to_bytes(8, "little") for word in stack)
        machine.write_physical(STACK_TOP - 8 - DIRECT_MAP, content)
        machine["rsp"] = STACK_TOP - 8
        ended = machine.run(RETURN)
        assert ended == REACHED, f"expected {function.__name__} to return, found the machine at its end: {ended}"
        assert machine["rsp"] == STACK_TOP, f"{function.__name__} returned with another stack pointer"
        buffers = [value for value in arguments if not isinstance(value, int)]
        for address, value in zip(places, buffers, strict=True):
            if isinstance(value, bytearray):
                value[:] = machine.read_physical(address, len(value))
        return plain_result(function, machine["rax"])

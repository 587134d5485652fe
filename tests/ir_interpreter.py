"""Runs IR on the Machine model: what the front end made, without the back end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from dsl.compiler import ir
from dsl.lang import Machine, intrinsics
from dsl.lang.annotations import resolve
from dsl.lang.failure import CheckFailed, Stopped
from dsl.lang.operations import evaluate
from dsl.lang.types import RecordType

BASE: Final = 0x7000_0000_0000  # where the module's objects and frames lie
STEP_LIMIT: Final = 100_000_000  # some random programs take more than five million


class Interpreter:
    """A module loaded into a machine's memory. The machine must be the current one while it runs."""

    def __init__(self, module: ir.Module, machine: Machine) -> None:
        self.module, self.machine = module, machine
        self.addresses: dict[str, int] = {}
        self.next = BASE
        self.steps = 0
        self.stopped_at: ir.Span | None = None  # the place of the check that failed
        for item in module.objects.values():
            address = self.addresses[item.symbol] = self.allocate(item.size, 4096)
            if item.content is None:
                machine.memory.map(address, item.size)
            else:
                content = (
                    machine.supplied[module.supplied[item.symbol]] if item.symbol in module.supplied else item.content
                )
                machine.memory.map_read_only(address, content)

    def allocate(self, size: int, align: int) -> int:
        address = -(-self.next // align) * align
        self.next = address + size
        return address

    def call(self, symbol: str, *arguments: int) -> tuple[int, ...]:
        """Run a function on components; give its components."""
        function = self.module.functions[symbol]
        assert len(arguments) == len(function.parameters), f"{symbol} takes {function.parameters}"
        values: dict[ir.Value, Any] = {}
        block, previous = function.blocks[0], None
        while True:
            taken: dict[ir.Value, Any] = {}
            for phi in block.phis():
                assert previous is not None
                taken[phi] = values[phi.arguments[block.predecessors.index(previous)]]
            values |= taken
            for value in block.values[len(taken) :]:
                self.steps += 1
                assert self.steps < STEP_LIMIT, "too many steps"
                if value.operation in ir.TERMINATORS:
                    break
                values[value] = self.execute(value, [values[argument] for argument in value.arguments], arguments)
            last = block.terminator
            if last.operation == "return":
                return tuple(values[argument] for argument in last.arguments)
            if last.operation == "stop":
                self.stopped_at = last.span
                raise Stopped(str(last.data))
            taken_branch = 1 if last.operation == "branch" and not values[last.arguments[0]] else 0
            previous, block = block, block.successors[taken_branch]

    def execute(self, value: ir.Value, operands: list[Any], arguments: tuple[int, ...]) -> Any:
        """The result of one value."""
        memory, data = self.machine.memory, value.data
        match value.operation:
            case "const":
                return data
            case "parameter":
                assert isinstance(data, int)
                return arguments[data] & ((1 << value.width) - 1)
            case "symbol":
                assert isinstance(data, ir.Address)
                return self.addresses[data.symbol] + data.addend
            case "frame":
                assert isinstance(data, ir.Slot)
                address = self.allocate(data.size, max(data.align, 4096))
                memory.map(address, data.size, b"\xa5" * data.size)
                return address
            case "load" | "store":
                return self.access(value, operands)
            case "opaque":
                return operands[0]
            case "check":
                if not operands[0]:
                    self.stopped_at = value.span
                    raise CheckFailed(str(data))
                return None
            case "call":
                assert isinstance(data, ir.Callee)
                return self.call(data.symbol, *operands)
            case "intrinsic":
                return run_instruction(data, operands)
            case "extract":
                return operands[0][data]
        result = evaluate(value.operation, value.width, operands, value.arguments[0].width)
        assert result is not None, value.operation
        return result

    def access(self, value: ir.Value, operands: list[int]) -> int | None:
        memory, how = self.machine.memory, value.data
        assert isinstance(how, ir.Access)
        address = (operands[0] + how.offset) & ((1 << 64) - 1)
        if value.operation == "load":
            read = memory.load_volatile if how.volatile else memory.load
            return read(address, value.width // 8)
        write = memory.store_volatile if how.volatile else memory.store
        write(address, value.arguments[1].width // 8, operands[1])
        return None


def run_instruction(row: Any, operands: list[int]) -> tuple[int, ...]:
    """An intrinsic's model under CPython, called with the words its row takes."""
    function: Callable[..., Any] = getattr(intrinsics, row.name)
    names = [name for name in function.__annotations__ if name != "return"]
    types = [resolve(function.__annotations__[name], function.__globals__) for name in names]
    given = [kind.python._wrap(operand) for kind, operand in zip(types, operands, strict=True)]  # type: ignore[attr-defined]
    result = function(*given)
    kind = resolve(function.__annotations__["return"], function.__globals__)
    return components(kind, result)


def components(kind: Any, result: Any) -> tuple[int, ...]:
    """A Python result as raw numbers, one a component."""
    if result is None:
        return ()
    parts = [getattr(result, name) for name in type(result).__record__] if isinstance(kind, RecordType) else [result]
    return tuple(int(part) & ((1 << width) - 1) for part, width in zip(parts, kind.widths, strict=True))

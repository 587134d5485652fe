"""What `@machine` marks: the functions of a program, and what runs under CPython in their place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR
from types import FunctionType
from typing import Any, NoReturn, TypeVar, overload

from dsl.lang.failure import CheckFailed, MachineError

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class MachineOptions:
    """What @machine was told. depth: how many activations may be live at once; model: what runs under CPython in its place;
    kernel: `module.path.function` that builds the machine code.
    """

    naked: bool = False
    depth: int | None = None
    model: Callable[..., Any] | None = None
    kernel: str | None = None
    simd: bool = False
    wipes: int | None = None


@overload
def machine(function: F, /) -> F: ...
@overload
def machine(
    *,
    naked: bool = ...,
    depth: int = ...,
    model: Callable[..., Any] = ...,
    kernel: str = ...,
    simd: bool = ...,
    wipes: int = ...,
) -> Callable[[F], F]: ...
def machine(function: Any = None, /, **options: Any) -> Any:
    """Mark a function for compilation and return it, the same object.

    naked: its body is one asm(...). depth: it may call itself, with at most this many activations at once.
    model: the Python function that runs under CPython instead. kernel: its machine code is a PeachPy function, made by the Python
    function of this dotted name; the body is what it does under CPython, ordinary Python, and is not compiled.
    simd: XMM0 to XMM15 are saved before its body and restored after it, so that kernels which use them may be called from there.
    wipes: so many bytes of stack, and the registers it may change but those of its result, are zeroed after its body: the stack
    that the body used, if that was not more.
    """

    def mark(function: Any) -> Any:
        if not isinstance(function, FunctionType):
            raise TypeError(f"@machine takes a function, not {function!r}")
        known = MachineOptions.__dataclass_fields__
        for name in options.keys() - known.keys():
            raise TypeError(f"@machine has no option {name!r}; it has {', '.join(known)}")
        told = MachineOptions(**options)
        if told.depth is not None and (told.depth.__class__ is not int or not 0 < told.depth < 1 << 31):
            raise TypeError(f"@machine(depth={told.depth!r}): expected a positive int")
        if told.model is not None and not callable(told.model):
            raise TypeError(f"@machine(model={told.model!r}): expected a Python function")
        if function.__closure__ or function.__defaults__ or function.__kwdefaults__:
            raise TypeError(f"{function.__name__}: a machine function has no closure and no default values")
        if function.__code__.co_flags & (CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR):
            raise TypeError(f"{function.__name__}: a machine function has no yield, and is not async")
        marked: Any = function
        marked.__machine__ = told
        if told.wipes is not None and (told.wipes.__class__ is not int or told.wipes < 8 or told.wipes % 8):
            raise TypeError(f"@machine(wipes={told.wipes!r}): expected a positive multiple of 8")
        if (told.simd or told.wipes) and (told.naked or told.kernel is not None or (told.simd and told.wipes)):
            raise TypeError(f"{function.__name__}: a region is of one kind, around a function with a body of its own")
        if told.model is not None:
            _run_instead(function, told.model)
        elif told.depth is not None:
            _run_instead(function, _counted(function, told.depth))
        return function

    return mark if function is None else mark(function)


def _run_instead(function: FunctionType, other: Callable[..., Any]) -> None:
    """Let calls of function run other. Importers already hold the function object, so its code is exchanged, not its name."""

    def trampoline(*arguments: Any, **named: Any) -> Any:
        target: Any = "other"
        return target(*arguments, **named)

    code = trampoline.__code__
    constants = tuple(other if constant == "other" else constant for constant in code.co_consts)
    written = function.__code__
    function.__code__ = code.replace(
        co_consts=constants,
        co_name=written.co_name,
        co_filename=written.co_filename,
        co_firstlineno=written.co_firstlineno,
    )


def _counted(function: FunctionType, depth: int) -> Callable[..., Any]:
    """The function as written, with a count of its live activations. More than depth: a failed check."""
    written = FunctionType(function.__code__, function.__globals__, function.__name__)
    live = [0]

    def counted(*arguments: Any, **named: Any) -> Any:
        if live[0] == depth:
            raise CheckFailed(f"{function.__name__} is active {depth} times already")
        live[0] += 1
        try:
            return written(*arguments, **named)
        finally:
            live[0] -= 1

    return counted


def asm(text: str, **names: object) -> NoReturn:
    """The body of a naked function. It has no meaning under CPython: give the function a model."""
    raise MachineError("asm(...) does not run under CPython: @machine(naked=True, model=python_function)")

"""How programs fail: checks that stop the machine, and Failure, a value that must be looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from dsl.lang.words import u64

# A failed check under CPython: `assert`, a bound, a shift count, a division by zero, an overflowing field. The same class as assert
# raises, so that one `except` sees every kind.
CheckFailed = AssertionError

# The code of the Failure that the language itself gives: checked arithmetic that overflowed, an untrusted value out of its limit.
OUT_OF_RANGE: Final = 1


class Stopped(Exception):
    """The program called stop(text)."""


class MachineError(Exception):
    """The Machine model was asked for something it does not have: no machine, memory that is not mapped, an unknown port."""


class DeclarationError(TypeError):
    """A Struct, Bits, Record or memory object is declared wrongly; file and line are where the declaration stands."""

    def __init__(self, message: str, file: str, line: int) -> None:
        super().__init__(f"{file}:{line}: {message}")
        self.message = message
        self.file = file
        self.line = line


class UnknownName(DeclarationError, NameError):
    """A declaration names what is not there, or not yet: a class further down in the module is found at first use."""


class Failure:
    """Why a function did not give its result: a u64 code, never 0. Compared by code; narrow with isinstance."""

    __slots__ = ("_code",)

    def __init__(self, code: u64 | int) -> None:
        from dsl.lang.words import u64

        word: Any = u64(code) if isinstance(code, int) else code
        if word.__class__ is not u64:
            raise TypeError(f"Failure takes a u64 code, not {type(code).__name__}")
        if int(word) == 0:
            raise CheckFailed("a Failure's code is never 0")
        self._code: u64 = word

    @property
    def code(self) -> u64:
        """The code it was made with."""
        return self._code

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Failure) and self._code == other._code

    def __hash__(self) -> int:
        return hash(self._code)

    def __repr__(self) -> str:
        return f"Failure({int(self._code)})"

    if not TYPE_CHECKING:

        def __bool__(self):
            raise TypeError("a Failure is no condition: narrow with isinstance(x, Failure)")


def stop(message: str) -> NoReturn:
    """Stop the machine for good with this text; never returns."""
    raise Stopped(message)

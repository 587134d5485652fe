"""Bits: an immutable value with fields at bit positions, as manuals print them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Self, dataclass_transform

from dsl.lang.annotations import DeclaredClass, resolve_fields
from dsl.lang.failure import CheckFailed, DeclarationError
from dsl.lang.layouts import BitField, BitsLayout
from dsl.lang.types import BoolType, EnumType, Type, WordType
from dsl.lang.words import Unsigned

_new = object.__new__
_GIVEN: Final = object()  # stands for "no default"


class BitsSpecification(NamedTuple):
    """What bits(high, low) leaves in the class body until the class is made."""

    high: int
    low: int
    default: object


def bits(high: int, low: int, *, default: Any = _GIVEN) -> Any:
    """Declare a field in bits high down to low, both included. Without a default it must be given at construction."""
    return BitsSpecification(high, low, default)


def bit(position: int, *, default: Any = _GIVEN) -> Any:
    """Declare a field of one bit."""
    return BitsSpecification(position, position, default)


class BitsClass(DeclaredClass):
    """The class of Bits classes: checks the layout where it is declared."""

    __layout__: BitsLayout

    def __new__(
        meta, name: str, bases: tuple[type, ...], namespace: dict[str, Any], storage: type[Unsigned] | None = None
    ) -> BitsClass:
        specifications = {key: value for key, value in namespace.items() if isinstance(value, BitsSpecification)}
        cls: BitsClass = super().__new__(meta, name, bases, namespace)
        if bases:
            cls.__layout__ = _layout(cls, storage, specifications)
            for key, field in cls.__layout__.fields.items():
                setattr(cls, key, _Field(field))
        return cls


def _layout(cls: BitsClass, storage: Any, specifications: dict[str, BitsSpecification]) -> BitsLayout:
    if not (isinstance(storage, type) and issubclass(storage, Unsigned) and storage is not Unsigned):
        raise cls.wrong("storage= must be u8, u16, u32 or u64")
    fields: dict[str, BitField] = {}
    taken = 0
    for name, type_ in resolve_fields(cls).items():
        specification = specifications.get(name)
        if name in vars(Bits):
            raise cls.wrong("every Bits has a method of this name", name)
        if specification is None:
            raise cls.wrong("a field of Bits needs a position: bit(n) or bits(high, low)", name)
        problem = _field_problem(type_, specification, storage.width, taken)
        if problem:
            raise cls.wrong(problem, name)
        high, low = specification.high, specification.low
        taken |= (1 << high + 1) - (1 << low)
        default = None if specification.default is _GIVEN else _default(cls, name, type_, specification)
        fields[name] = BitField(name, high, low, type_, default)
    return BitsLayout(WordType(storage), fields)


def _field_problem(type_: Type, specification: BitsSpecification, width: int, taken: int) -> str | None:
    high, low = specification.high, specification.low
    if not 0 <= low <= high < width:
        return f"bits({high}, {low}) in {width} bits of storage: high, low, both below the width"
    if taken & ((1 << high + 1) - (1 << low)):
        return f"bits({high}, {low}) overlap another field"
    count = high - low + 1
    match type_:
        case BoolType():
            return None if count == 1 else f"a bool is one bit, not {count}"
        case WordType(width=room, signed=False) | EnumType(word=WordType(width=room, signed=False)):
            return None if count <= room else f"{count} bits do not fit a type of {room} bits"
    return "a field is bool, an unsigned word, or an Enum of those"


def _default(cls: BitsClass, name: str, type_: Type, specification: BitsSpecification) -> int:
    value = specification.default
    if isinstance(type_, WordType) and value.__class__ is int:
        value = type_.python(value)
    try:
        return encode(type_, value, specification.high - specification.low + 1, f"{cls.__name__}.{name}")
    except (TypeError, CheckFailed) as error:
        raise DeclarationError(f"default: {error}", *cls.place(name)) from None


def encode(type_: Type, value: Any, count: int, name: str) -> int:
    """A field's value as a plain number of count bits. A wrong type is a TypeError, too large a value a failed check."""
    type_.require(value, name)
    number = type_.encode(value)
    if number >> count:
        raise CheckFailed(f"{name}: {number:#x} does not fit in {count} bits")
    return number


class _Field:
    """Reads one field out of the raw word."""

    __slots__ = ("decode", "low", "mask")

    def __init__(self, field: BitField) -> None:
        self.low, self.mask = field.low, (1 << field.count) - 1
        self.decode = field.type.decode

    def __get__(self, value: Any, owner: type | None = None) -> Any:
        return self if value is None else self.decode(value._value >> self.low & self.mask)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(bit, bits))
class Bits(metaclass=BitsClass):
    """Base of bit-field values. Bits that no field names are zero when constructed, and kept when loaded."""

    __slots__ = ("_value",)

    if TYPE_CHECKING:
        __layout__: ClassVar[BitsLayout]
        _value: Final[int] = 0  # not a field: Final with a value

        def __init_subclass__(cls, *, storage: type[Unsigned]) -> None: ...
    else:
        _value: int

        def __init__(self, **fields):
            layout = self.__class__.__layout__
            missing = [name for name, field in layout.fields.items() if field.default is None and name not in fields]
            if missing:
                raise TypeError(f"{self.__class__.__name__}: {', '.join(missing)} not given")
            raw = 0
            for name, field in layout.fields.items():
                if field.default is not None and name not in fields:
                    raw |= field.default << field.low
            self._value = _updated(self.__class__, raw, fields)

    def raw(self) -> Any:
        """The storage word. (Its type is the class's storage=, which type checkers cannot see: u64(x.raw()) tells them.)"""
        return self.__class__.__layout__.storage.python(self._value)

    @classmethod
    def _wrap(cls, number: int) -> Self:
        value: Any = _new(cls)
        value._value = number
        return value  # type: ignore[no-any-return]

    @classmethod
    def from_raw(cls, word: Any) -> Self:
        """The value with these bits; nothing is checked or cleared."""
        storage = cls.__layout__.storage.python
        if word.__class__ is int:
            word = storage(word)
        if word.__class__ is not storage:
            raise TypeError(f"{cls.__name__}.from_raw takes {storage.__name__}, not {word.__class__.__name__}")
        return cls._wrap(int(word))

    def with_(self, **changes: Any) -> Self:
        """The same value with some fields changed. A field that overflows is a failed check."""
        return self._wrap(_updated(self.__class__, self._value, changes))

    def __eq__(self, other: Self) -> bool:  # type: ignore[override]
        if other.__class__ is not self.__class__:
            raise TypeError(f"comparison of {self.__class__.__name__} with {other.__class__.__name__}")
        return self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__class__.__layout__.fields)
        return f"{self.__class__.__name__}({fields})"

    if not TYPE_CHECKING:

        def __bool__(self):
            raise TypeError(f"{self.__class__.__name__} is no condition: ask for a field")


def _updated(cls: BitsClass | type[Bits], raw: int, changes: dict[str, Any]) -> int:
    """Raw with some fields replaced."""
    layout = cls.__layout__
    for name, value in changes.items():
        field = layout.fields.get(name)
        if field is None:
            raise TypeError(f"{cls.__name__} has no field {name}; it has {', '.join(layout.fields)}")
        count = field.high - field.low + 1
        mask = (1 << count) - 1
        raw = raw & ~(mask << field.low) | encode(field.type, value, count, f"{cls.__name__}.{name}") << field.low
    return raw

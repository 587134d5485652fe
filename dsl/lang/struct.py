"""Struct: a reference to memory with a checked layout. Natural alignment; no padding that is not declared."""

from __future__ import annotations

import inspect
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Self, TypeGuard

from dsl.lang.addresses import HostVirtual
from dsl.lang.annotations import DeclaredClass, resolve_fields
from dsl.lang.failure import DeclarationError
from dsl.lang.layouts import FieldLayout, StructLayout
from dsl.lang.model import current_machine
from dsl.lang.types import ArrayType, Type

_new = object.__new__
_HIGHEST_ALIGN: Final = 1 << 21


class FieldSpecification(NamedTuple):
    """What array(n) and at(offset) leave in the class body until the class is made."""

    length: int | None = None
    offset: int | None = None


def array(length: int, *, at: int | None = None) -> Any:
    """Declare an inline array of this many elements, at the next place or at an explicit offset in bytes."""
    if length.__class__ is not int or not 0 < length < 1 << 40:
        raise TypeError(f"array(n) takes a positive int below 2**40, not {length!r}")
    return FieldSpecification(length, at)


def at(offset: int) -> Any:
    """Declare a field at an explicit offset in bytes; the Struct may then have gaps."""
    return FieldSpecification(None, offset)


class _Wanted(NamedTuple):
    """The keywords of a Struct's class statement, in bytes: what its size and alignment are claimed to be; packed: no alignment."""

    size: int | None = None
    align: int | None = None
    packed: bool = False


class StructClass(DeclaredClass):
    """The class of Struct classes: computes and checks the layout, at once if every name is known, else at first use."""

    _layout: StructLayout | None
    _wanted: _Wanted
    _specifications: dict[str, FieldSpecification]

    def __new__(meta, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **wanted: Any) -> StructClass:
        specifications = {key: value for key, value in namespace.items() if isinstance(value, FieldSpecification)}
        cls: StructClass = super().__new__(meta, name, bases, namespace)
        if unknown := ", ".join(wanted.keys() - set(_Wanted._fields)):
            raise cls.wrong(f"a Struct takes {', '.join(_Wanted._fields)}, not {unknown}")
        cls._layout, cls._wanted, cls._specifications = None, _Wanted(**wanted), specifications
        if "__annotations__" in namespace and bases:
            if any(_declares_fields(base) for base in bases):
                raise cls.wrong("a Struct does not inherit fields; nest it")
            for key in namespace["__annotations__"]:
                if key in namespace and key not in specifications:
                    raise cls.wrong("a Struct's fields have no default values, only at(offset) and array(n)", key)
                if key in vars(Struct):
                    raise cls.wrong("every Struct has a method of this name", key)
                setattr(cls, key, _Field(cls, key))
            with suppress(NameError):  # a class further down: looked up at first use
                _ = cls.__layout__
        return cls

    @property
    def __layout__(cls) -> StructLayout:
        """Size, alignment and fields."""
        if cls._layout is None:
            described = next((base for base in cls.__mro__ if _declares_fields(base)), cls)
            own = described is cls
            cls._layout = cls.outside_itself(_compute_layout) if own else described.__layout__
        return cls._layout


def _declares_fields(base: type) -> TypeGuard[StructClass]:
    return isinstance(base, StructClass) and base.__name__ != "Struct" and bool(inspect.get_annotations(base))


def _compute_layout(cls: StructClass) -> StructLayout:
    _size, _align, packed = cls._wanted
    fields: dict[str, FieldLayout] = {}
    end, natural = 0, 1
    gaps = False
    for name, declared in resolve_fields(cls).items():
        specification = cls._specifications.get(name) or FieldSpecification()
        kind = _field_type(cls, name, declared, specification)
        offset = end if specification.offset is None else specification.offset
        gaps = gaps or specification.offset is not None
        field_align = 1 if packed else kind.align
        if offset < end:
            raise cls.wrong(f"offset {offset:#x} is inside the field before it", name)
        if offset % field_align:
            need = field_align - offset % field_align
            text = f"{kind} at offset {offset:#x} is not aligned to {field_align}"
            raise cls.wrong(f"{text}: declare {need} bytes of padding before it", name)
        fields[name] = FieldLayout(name, offset, kind)
        end, natural = offset + fields[name].size, max(natural, field_align)
    return _checked(cls, fields, end, natural, gaps)


def _field_type(cls: StructClass, name: str, kind: Type, specification: FieldSpecification) -> Type:
    if isinstance(kind, ArrayType):
        if specification.length is None:
            raise cls.wrong("an array in a Struct needs a length: array(n)", name)
        kind = ArrayType(kind.element, specification.length)
    elif specification.length is not None:
        raise cls.wrong(f"array(n) is for Array[...], not {kind}", name)
    try:
        assert kind.size
    except DeclarationError:
        raise
    except TypeError as error:
        raise cls.wrong(str(error), name) from None
    return kind


def _checked(cls: StructClass, fields: dict[str, FieldLayout], end: int, natural: int, gaps: bool) -> StructLayout:
    """The layout, once it agrees with what size= and align= claim."""
    size, align, _packed = cls._wanted

    if align is not None and (align < natural or align & (align - 1) or align > _HIGHEST_ALIGN):
        raise cls.wrong(f"align={align}: a power of two, not below {natural}, which its fields need")
    align = natural if align is None else align
    if size is not None and (size < end or (size != end and not gaps)):
        raise cls.wrong(f"size={size}, but the fields take {end} bytes")
    size = end if size is None else size
    if not fields:
        raise cls.wrong("a Struct has at least one field")
    if size % align:
        raise cls.wrong(
            f"{size} bytes are no positive multiple of its alignment {align}: declare the padding at its end"
        )
    return StructLayout(size, align, dict(sorted(fields.items(), key=lambda item: item[1].offset)))


class _Field:
    """Reads and writes one field of a Struct."""

    __slots__ = ("name", "offset", "owner", "type")

    def __init__(self, owner: StructClass, name: str) -> None:
        self.owner, self.name = owner, name
        self.offset = 0
        self.type: Type | None = None

    def _resolve(self) -> Type:
        field = self.owner.__layout__.fields[self.name]
        self.offset, self.type = field.offset, field.type
        return self.type

    def __get__(self, view: Any, owner: type | None = None) -> Any:
        if view is None:
            return self
        return (self.type or self._resolve()).load(view._memory, view._address + self.offset, view._keeper)

    def __set__(self, view: Any, value: Any) -> None:
        kind = self.type or self._resolve()
        if not kind.holds(value):
            kind.require(value, f"{self.owner.__name__}.{self.name}")
        kind.store(view._memory, view._address + self.offset, value)


class Struct(metaclass=StructClass):
    """Base of structures: a reference to memory. Calling the class makes a zeroed object in the frame of the caller."""

    __slots__ = ("_address", "_keeper", "_memory")

    if TYPE_CHECKING:
        __layout__: ClassVar[StructLayout]
        _memory: Any
        _address: int
        _keeper: Any

        def __init_subclass__(
            cls, *, size: int | None = None, align: int | None = None, packed: bool = False
        ) -> None: ...

    __declaration__: ClassVar[Any] = None

    def __init__(self) -> None:
        layout = self.__class__.__layout__
        machine = current_machine()
        self._memory = machine.memory
        self._keeper = machine.frame(layout.size, layout.align)
        self._address = self._keeper.address

    @classmethod
    def _view(cls, memory: Any, address: int, keeper: Any) -> Self:
        view = _new(cls)
        view._memory, view._address, view._keeper = memory, address, keeper
        return view

    @classmethod
    def at(cls, address: HostVirtual) -> Self:
        """The structure at an address. The caller says why that memory holds one."""
        if address.__class__ is not HostVirtual:
            raise TypeError(f"{cls.__name__}.at takes a HostVirtual, not {address.__class__.__name__}")
        return cls._view(current_machine().memory, address._value, None)

    def copy_from(self, other: Self) -> None:
        """Copy every byte of other here."""
        if other.__class__.__layout__ is not self.__class__.__layout__:
            raise TypeError(f"copy of {other.__class__.__name__} to {self.__class__.__name__}")
        self._memory.write(self._address, other._memory.read(other._address, self.__class__.__layout__.size))

    def clear(self) -> None:
        """Zero every byte."""
        self._memory.write(self._address, bytes(self.__class__.__layout__.size))

    if not TYPE_CHECKING:
        __hash__ = None

        def __eq__(self, _other):
            raise TypeError(f"{self.__class__.__name__} is a reference: compare its fields")

        def __bool__(self):
            raise TypeError(f"{self.__class__.__name__} is no condition: is None, is not None")

    def __repr__(self) -> str:
        return f"<{self.__class__.__name__}>"


def size_of(struct: type[Struct]) -> int:
    """The size in bytes: an int constant."""
    return struct.__layout__.size


def offset_of(struct: type[Struct], field: str) -> int:
    """A field's offset in bytes: an int constant."""
    fields = struct.__layout__.fields
    if field not in fields:
        raise TypeError(f"{struct.__name__} has no field {field}; it has {', '.join(fields)}")
    return fields[field].offset

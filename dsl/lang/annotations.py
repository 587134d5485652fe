"""What an annotation means: every legal spelling is read here and nowhere else.

Spellings: the objects themselves, strings (quoted, or by `from __future__ import annotations`), `T | None`, `T | Failure`, and
the aliases `Static[T]`, `Device[T]`, `Shared[T]`, `Ref[T] | None`, which type checkers see as T.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import sys
import types
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Annotated, Any, ForwardRef, TypeVar, Union, get_args, get_origin

from dsl.lang import types as t
from dsl.lang.addresses import Address
from dsl.lang.failure import DeclarationError, Failure, UnknownName
from dsl.lang.words import WORDS, Word

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Marker:
    """What an Annotated alias adds to its type: static, device, shared or ref."""

    name: str


Static = Annotated[T, Marker("static")]  # a compile-time parameter
Device = Annotated[T, Marker("device")]  # memory of a device: one access per mention, of the declared width
Shared = Annotated[T, Marker("shared")]  # memory that others write: one access per mention
Ref = Annotated[T, Marker("ref")]  # a reference kept in memory; only as Ref[T] | None


class DeclaredClass(type):
    """Base metaclass of Struct, Bits and Record: instances have slots only, and the class remembers where it was declared."""

    _names: Mapping[str, Any]
    _file: str
    _line: int
    _open: bool = False

    def __new__(meta, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **keywords: Any) -> Any:
        namespace.setdefault("__slots__", ())
        cls = super().__new__(meta, name, bases, namespace)
        frame = sys._getframe(1)
        while frame.f_code.co_filename == __file__ or frame.f_code.co_name == "__new__":
            assert frame.f_back is not None
            frame = frame.f_back
        # names as the class statement sees them: the class, its own locals, then the module, which may still be growing
        inner = {} if frame.f_locals is frame.f_globals else dict(frame.f_locals)
        cls._names = ChainMap({name: cls}, inner, frame.f_globals)
        cls._file, cls._line = frame.f_code.co_filename, frame.f_lineno
        return cls

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **_keywords: Any) -> None:
        super().__init__(name, bases, namespace)

    def outside_itself(cls, describe: Callable[[Any], T]) -> T:
        """What describe makes of the class, for which it must not need this very class."""
        if cls._open:
            raise cls.wrong("it contains itself; memory refers to more of its kind by Ref[T] | None")
        cls._open = True
        try:
            return describe(cls)
        finally:
            cls._open = False

    def wrong(cls, message: str, field: str = "") -> DeclarationError:
        """The error that a field, or the class, is declared wrongly."""
        return DeclarationError(f"{cls.__name__}{field and '.'}{field}: {message}", *cls.place(field))

    def place(cls, field: str = "") -> tuple[str, int]:
        """File and line of the declaration of a field, or of the class."""
        line = next((line for name, line in _field_lines(cls._file, cls._line) if name == field), cls._line)
        return cls._file, line


def _field_lines(file: str, class_line: int) -> list[tuple[str, int]]:
    """Names and lines of the annotated fields of the class statement at class_line."""
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return []
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    body = [
        statement for node in found if node.lineno <= class_line <= (node.body[0].lineno) for statement in node.body
    ]
    return [(s.target.id, s.lineno) for s in body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)]


def resolve_fields(cls: DeclaredClass) -> dict[str, t.Type]:
    """The types of a class's annotated fields, in order."""
    resolved = {}
    for name, annotation in inspect.get_annotations(cls).items():
        try:
            resolved[name] = resolve(annotation, cls._names)
        except NameError as error:
            raise UnknownName(f"{cls.__name__}.{name}: {error}", *cls.place(name)) from None
        except TypeError as error:
            raise cls.wrong(str(error), name) from None
    return resolved


def resolve(annotation: Any, namespace: Mapping[str, Any]) -> t.Type:
    """The type that an annotation means, with its names looked up in namespace.

    Raises NameError for a name that is not there and TypeError for what is no type of the language.
    """
    annotation = _evaluated(annotation, namespace)
    if isinstance(annotation, type):
        return _class_type(annotation)
    if annotation is None:
        return t.NONE
    origin = get_origin(annotation)
    if origin is Annotated:
        return _marked(annotation, namespace)
    if origin is Union or origin is types.UnionType:
        return _union(get_args(annotation), namespace)
    return _generic(annotation, origin, namespace)


def _evaluated(annotation: Any, namespace: Mapping[str, Any]) -> Any:
    """What an annotation in quotes spells."""
    if isinstance(annotation, ForwardRef):
        annotation = annotation.__forward_arg__
    while isinstance(annotation, str):
        annotation = eval(annotation, {}, namespace)
    return annotation


def _generic(annotation: Any, origin: Any, namespace: Mapping[str, Any]) -> t.Type:
    """Array[T], Untrusted[T], Secret[T]."""
    from dsl.lang.array import Array
    from dsl.lang.taint import Secret, Untrusted

    if origin not in (Array, Untrusted, Secret):
        raise TypeError(f"{_spelling(annotation)} is no type of the language")
    inner = resolve(get_args(annotation)[0], namespace)
    if origin is Array and isinstance(inner, t.ArrayType | t.RecordType | t.QualifiedType):
        _ = inner.size  # raises TypeError for what has no place in memory
    if origin is not Array and not isinstance(inner, t.ScalarType | t.BoolType):
        raise TypeError(f"{origin.__name__}[T] takes a word, bool, Bits, Enum or address, not {inner}")
    return t.ArrayType(inner) if origin is Array else t.QualifiedType(origin.__name__.lower(), inner)


@cache
def _class_type(annotation: type) -> t.Type:
    """The type that a class is."""
    from dsl.lang.bits import Bits
    from dsl.lang.record import Record
    from dsl.lang.struct import Struct

    known: dict[type, t.Type] = {bool: t.BOOL, Failure: t.FAILURE, types.NoneType: t.NONE}
    if annotation in known:
        return known[annotation]
    kinds: dict[type, type[t.NamedType]] = {
        Address: t.AddressType,
        Struct: t.StructType,
        Bits: t.BitsType,
        Record: t.RecordType,
    }
    for base, kind in kinds.items():
        if issubclass(annotation, base) and annotation is not base:
            return kind(annotation)
    if annotation in WORDS:
        return t.WordType(annotation)
    if issubclass(annotation, Enum):
        return _enumeration(annotation)
    raise TypeError(f"{_spelling(annotation)} is no type of the language")


def _spelling(annotation: Any) -> str:
    return str(getattr(annotation, "__name__", None) or repr(annotation))


def _marked(annotation: Any, namespace: Mapping[str, Any]) -> t.Type:
    """Static[T], Device[T], Shared[T]; Ref[T] stands only beside None."""
    markers = [item.name for item in annotation.__metadata__ if isinstance(item, Marker)]
    if len(markers) != 1:
        raise TypeError(f"{annotation!r}: exactly one of Static, Device, Shared or Ref")
    inner = resolve(get_args(annotation)[0], namespace)
    if markers[0] == "ref":
        raise TypeError("a reference in memory may be absent: spell it Ref[T] | None")
    if isinstance(inner, t.QualifiedType | t.ArrayType | t.StructType | t.RecordType) and markers[0] != "static":
        raise TypeError(f"{markers[0].capitalize()}[T] takes a word, bool, Bits, Enum or address")
    return t.StaticType(inner) if markers[0] == "static" else t.QualifiedType(markers[0], inner)


def _union(members: tuple[Any, ...], namespace: Mapping[str, Any]) -> t.Type:
    """T | None for a reference, and T | Failure."""
    present = [member for member in members if member is not types.NoneType and member is not Failure]
    if len(present) > 1:
        raise TypeError("a union is T | None or T | Failure")
    inner = _optional(present[0], namespace, types.NoneType in members) if present else t.NoneType_()
    return t.FallibleType(inner) if Failure in members else inner


def _optional(member: Any, namespace: Mapping[str, Any], optional: bool) -> t.Type:
    member = _evaluated(member, namespace)
    if not optional:
        return resolve(member, namespace)
    if get_origin(member) is Annotated and Marker("ref") in member.__metadata__:
        member = get_args(member)[0]
    inner = resolve(member, namespace)
    if not isinstance(inner, t.StructType):
        raise TypeError(f"only a reference to a Struct may be None, not {_spelling(member)}")
    return t.StructType(inner.python, optional=True)


def _enumeration(cls: type[Enum]) -> t.EnumType:
    kinds = {member.value.__class__ for member in cls}
    word = kinds.pop() if len(kinds) == 1 else None
    if word is None or not issubclass(word, Word):
        raise TypeError(f"{cls.__name__}: every member's value must be a word of one type, such as u32(1)")
    return t.EnumType(cls)

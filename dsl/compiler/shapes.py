"""How types look in registers and in memory, what they are called in messages, and which type fits where."""

from __future__ import annotations

from typing import Final

from dsl.lang.types import (
    AddressType,
    ArrayType,
    BitsLayout,
    BitsType,
    BoolType,
    EnumType,
    FailureType,
    FallibleType,
    NoneType_,
    QualifiedType,
    RecordType,
    StaticType,
    StructLayout,
    StructType,
    Type,
    WordType,
)
from dsl.lang.words import Word, i8, i16, i32, i64, u8, u16, u32, u64

BOOL: Final = BoolType()
NONE: Final = NoneType_()
FAILURE: Final = FailureType()
WORDS: Final[dict[type[Word], WordType]] = {
    word: WordType(word, width, signed)
    for word, width, signed in (
        (u8, 8, False), (u16, 16, False), (u32, 32, False), (u64, 64, False),
        (i8, 8, True), (i16, 16, True), (i32, 32, True), (i64, 64, True),
    )
}  # fmt: skip
U8, U16, U32, U64 = WORDS[u8], WORDS[u16], WORDS[u32], WORDS[u64]
UNSIGNED: Final = {8: U8, 16: U16, 32: U32, 64: U64}
SIGNED: Final = {8: WORDS[i8], 16: WORDS[i16], 32: WORDS[i32], 64: WORDS[i64]}


def struct_layout(python: type) -> StructLayout:
    layout: StructLayout = python.__layout__  # type: ignore[attr-defined]
    return layout


def bits_layout(python: type) -> BitsLayout:
    layout: BitsLayout = python.__layout__  # type: ignore[attr-defined]
    return layout


def record_fields(python: type) -> dict[str, Type]:
    fields: dict[str, Type] = python.__record__  # type: ignore[attr-defined]
    return fields


def widths(kind: Type) -> tuple[int, ...]:
    """The widths of the IR values that hold a value of this type."""
    match kind:
        case NoneType_():
            return ()
        case BoolType():
            return (1,)
        case WordType(width=width):
            return (width,)
        case BitsType(python=python):
            return (bits_layout(python).storage.width,)
        case EnumType(word=word):
            return (word.width,)
        case AddressType() | StructType() | FailureType():
            return (64,)
        case ArrayType():
            return (64, 64)
        case RecordType(python=python):
            return tuple(width for field in record_fields(python).values() for width in widths(field))
        case QualifiedType(inner=inner) | StaticType(inner=inner):
            return widths(inner)
        case FallibleType(inner=inner):
            return (64, *widths(inner))
    raise TypeError(f"{kind} has no registers")


def secret_parts(kind: Type) -> tuple[bool, ...]:
    """For each component of a value of this type: whether it is secret."""
    match kind:
        case QualifiedType(qualifier="secret", inner=inner):
            return (True,) * len(widths(inner))
        case RecordType(python=python):
            return tuple(part for field in record_fields(python).values() for part in secret_parts(field))
        case FallibleType(inner=inner):
            return (False, *secret_parts(inner))
    return (False,) * len(widths(kind))


def memory_size(kind: Type) -> int:
    """Bytes that one element or field of this type takes in memory."""
    match kind:
        case BoolType():
            return 1
        case StructType(optional=True):
            return 8
        case StructType(python=python):
            return struct_layout(python).size
        case ArrayType(element=element, length=int(length)):
            return memory_size(element) * length
        case QualifiedType(inner=inner):
            return memory_size(inner)
        case WordType() | BitsType() | EnumType() | AddressType():
            return widths(kind)[0] // 8
    raise TypeError(f"{kind} has no size in memory")


def memory_align(kind: Type) -> int:
    match kind:
        case StructType(python=python, optional=False):
            return struct_layout(python).align
        case ArrayType(element=element):
            return memory_align(element)
        case QualifiedType(inner=inner):
            return memory_align(inner)
    return memory_size(kind)


def describe(kind: Type) -> str:
    """The type as programs spell it."""
    match kind:
        case NoneType_():
            return "None"
        case BoolType():
            return "bool"
        case FailureType():
            return "Failure"
        case StructType(python=python, optional=optional):
            return f"{python.__name__} | None" if optional else str(python.__name__)
        case WordType(python=python) | AddressType(python=python) | BitsType(python=python):
            return str(python.__name__)
        case EnumType(python=python) | RecordType(python=python):
            return str(python.__name__)
        case ArrayType(element=element):
            return f"Array[{describe(element)}]"
        case QualifiedType(qualifier=qualifier, inner=inner):
            return f"{qualifier.capitalize()}[{describe(inner)}]"
        case StaticType(inner=inner):
            return f"Static[{describe(inner)}]"
        case FallibleType(inner=inner):
            return f"{describe(inner)} | Failure"
    return str(kind)


def general(kind: Type) -> Type:
    """The type without what only one value knows: an array's constant length."""
    match kind:
        case ArrayType(element=element):
            return ArrayType(general(element))
        case FallibleType(inner=inner):
            return FallibleType(general(inner))
    return kind


def word_of(kind: Type) -> WordType | None:
    """The word that carries a scalar: itself, or that of an Enum, an address, a Bits; None for others."""
    match kind:
        case WordType():
            return kind
        case EnumType(word=word):
            return word
        case AddressType():
            return U64
        case BitsType(python=python):
            return bits_layout(python).storage
    return None


def strip(kind: Type) -> Type:
    """The type without its taint."""
    return kind.inner if isinstance(kind, QualifiedType) else kind


def taint_of(kind: Type) -> str:
    """untrusted, secret or the empty string."""
    return kind.qualifier if isinstance(kind, QualifiedType) and kind.qualifier in ("untrusted", "secret") else ""


def tainted(taint: str, kind: Type) -> Type:
    """Kind with a taint on it, if there is one."""
    return QualifiedType(taint, kind) if taint and not isinstance(kind, NoneType_) else kind


def has_reference(kind: Type) -> bool:
    """Whether a value of this type may hold a reference to memory."""
    match strip(kind):
        case StructType() | ArrayType():
            return True
        case RecordType(python=python):
            return any(has_reference(field) for field in python.__record__.values())
    inner = getattr(kind, "inner", None)
    return isinstance(inner, Type) and has_reference(inner)


def literal_range(word: WordType) -> tuple[int, int]:
    """The least and the greatest integer that the word holds."""
    return (-(1 << word.width - 1), (1 << word.width - 1) - 1) if word.signed else (0, (1 << word.width) - 1)

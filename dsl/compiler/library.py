"""The functions of dsl.lang that programs call: one row each, and how it becomes IR.

Rows that work on words keep taints: an Untrusted or Secret operand gives an Untrusted or Secret result, where the language allows it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from dsl.compiler import ir
from dsl.compiler.arithmetic import WORD_FUNCTIONS
from dsl.compiler.fitting import coerce, public
from dsl.compiler.memory import frame_slot, zero, zero_elements
from dsl.compiler.operands import Integer, Named, Operand, Typed
from dsl.compiler.shapes import NONE, U8, U64, describe, memory_size, strip, struct_layout, taint_of, tainted
from dsl.lang.addresses import HostVirtual
from dsl.lang.types import AddressType, ArrayType, QualifiedType, StructType, Type, WordType

if TYPE_CHECKING:
    from dsl.compiler.lower import Lowering

Given = list[tuple[Operand, ast.expr]]  # evaluated arguments in parameter order
Lower = Callable[["Lowering", Given, ast.Call], Operand]
HOST_VIRTUAL: Final = AddressType(HostVirtual)
BYTES: Final = ArrayType(U8)


def class_argument(lowering: Lowering, argument: tuple[Operand, ast.expr]) -> Type:
    """A type given as an argument, such as the T of frame_array(T, n)."""
    operand, node = argument
    if not isinstance(operand, Named):
        raise lowering.error("type-mismatch", node, f"expected a type, found {lowering.spell(operand)}")
    return lowering.unit.constants.class_type(lowering, operand.python, node)


def integer_argument(lowering: Lowering, argument: tuple[Operand, ast.expr], what: str) -> int:
    """An int that must be known at build time."""
    operand, node = argument
    if isinstance(operand, Integer):
        return operand.value
    if isinstance(operand, Typed) and isinstance(operand.type, WordType) and operand.value.operation == "const":
        return int(str(operand.value.data))
    raise lowering.error("static-argument", node, f"{what} must be an int constant, found {lowering.spell(operand)}")


def text_argument(lowering: Lowering, argument: tuple[Operand, ast.expr], what: str) -> str:
    operand, node = argument
    if isinstance(operand, Named) and isinstance(operand.python, str):
        return operand.python
    raise lowering.error("type-mismatch", node, f"{what} must be a literal text, found {lowering.spell(operand)}")


def array_argument(lowering: Lowering, argument: tuple[Operand, ast.expr]) -> tuple[Typed, Type]:
    operand, node = argument
    if isinstance(operand, Typed) and isinstance(operand.type, ArrayType):
        return operand, operand.type.element
    raise lowering.error("type-mismatch", node, f"expected an Array, found {lowering.spell(operand)}")


# Memory


def size_of(lowering: Lowering, given: Given, node: ast.Call) -> Operand:
    return Integer(memory_size(class_argument(lowering, given[0])))


def offset_of(lowering: Lowering, given: Given, node: ast.Call) -> Operand:
    kind, name = class_argument(lowering, given[0]), text_argument(lowering, given[1], "the field")
    if not isinstance(kind, StructType) or name not in struct_layout(kind.python).fields:
        raise lowering.error("no-attribute", given[1][1], f"{describe(kind)} has no field '{name}'")
    return Integer(struct_layout(kind.python).fields[name].offset)


def address_of(lowering: Lowering, given: Given, node: ast.Call) -> Operand:
    operand, where = given[0]
    if isinstance(operand, Typed) and isinstance(operand.type, StructType | ArrayType):
        if isinstance(operand.type, StructType) and operand.type.optional:
            raise lowering.error(
                "not-narrowed", where, f"{describe(operand.type)} may have no address", "narrow it: if x is not None"
            )
        return Typed(HOST_VIRTUAL, operand.values[:1])
    raise lowering.error(
        "type-mismatch", where, f"only a Struct or an Array has an address, found {lowering.spell(operand)}"
    )


def array_at(lowering: Lowering, given: Given, node: ast.Call) -> Operand:
    element = class_argument(lowering, given[0])
    address = coerce(lowering, given[1][0], HOST_VIRTUAL, given[1][1])
    public(lowering, given[2][0], given[2][1], "an array's length")
    count = coerce(lowering, given[2][0], U64, given[2][1], literal=True)
    return Typed(ArrayType(element), (address.value, count.value))


def frame_array(lowering: Lowering, given: Given, node: ast.Call) -> Operand:
    element, count = class_argument(lowering, given[0]), integer_argument(lowering, given[1], "a frame array's length")
    if count < 0:
        raise lowering.error("literal-range", given[1][1], f"an array's length is not negative, found {count}")
    return frame_slot(lowering, ArrayType(element, count), node)


def erase(lowering: Lowering, given: Given, node: ast.Call) -> Operand:
    """Zero a Struct or Array with accesses that no pass removes."""
    operand, where = given[0]
    if isinstance(operand, Typed) and isinstance(operand.type, StructType) and not operand.type.optional:
        zero(lowering, operand.value, memory_size(operand.type), volatile=True)
        return Typed(NONE, ())
    array, element = array_argument(lowering, given[0])
    address, length = array.values
    if isinstance(length.data, int) and length.operation == "const":
        zero(lowering, address, length.data * memory_size(element), volatile=True)
    else:
        lowering.at(where)
        zero_elements(lowering, address, length, memory_size(element))
    return Typed(NONE, ())


def text(lowering: Lowering, given: Given, node: ast.Call) -> Operand:
    content = text_argument(lowering, given[0], "text(...)").encode()
    if not content:
        raise lowering.error("literal-range", given[0][1], "a text has at least one character")
    symbol = lowering.unit.constants.text_symbol(lowering.namespace["__name__"], content)
    builder = lowering.builder
    return Typed(BYTES, (builder.emit("symbol", 64, data=ir.Address(symbol)), builder.constant(len(content), 64)))


def function_address(lowering: Lowering, given: Given, node: ast.Call) -> Operand:
    operand, where = given[0]
    python: Any = operand.python if isinstance(operand, Named) else None
    if getattr(python, "__machine__", None) is None:
        raise lowering.error("not-machine", where, f"{lowering.spell(operand)} is no machine function")
    symbol = lowering.unit.request(python, (), lowering, where)
    return Typed(HOST_VIRTUAL, (lowering.builder.emit("symbol", 64, data=ir.Address(symbol)),))


def stop(lowering: Lowering, given: Given, node: ast.Call) -> Operand:
    lowering.builder.finish("stop", [], text_argument(lowering, given[0], "stop(...)"))
    return Typed(NONE, ())


def linked_bytes(symbol: str) -> Lower:
    """An array that the linker makes: the bytes between two of its symbols."""

    def lower(lowering: Lowering, given: Given, node: ast.Call) -> Operand:
        builder = lowering.builder
        begin = builder.emit("symbol", 64, data=ir.Address(symbol))
        length = builder.emit("sub", 64, builder.emit("symbol", 64, data=ir.Address(f"{symbol}_end")), begin)
        return Typed(BYTES, (begin, length))

    return lower


def linked_address(symbol: str) -> Lower:
    def lower(lowering: Lowering, given: Given, node: ast.Call) -> Operand:
        return Typed(HOST_VIRTUAL, (lowering.builder.emit("symbol", 64, data=ir.Address(symbol)),))

    return lower


# Taints


def untrusted(lowering: Lowering, given: Given, node: ast.Call) -> Operand:
    return taint_word(lowering, given, "untrusted")


def secret(lowering: Lowering, given: Given, node: ast.Call) -> Operand:
    return taint_word(lowering, given, "secret")


def taint_word(lowering: Lowering, given: Given, taint: str) -> Typed:
    operand, where = given[0]
    if not isinstance(operand, Typed) or taint_of(operand.type) or len(operand.values) != 1:
        raise lowering.error(
            "type-mismatch", where, f"{taint}(...) takes a public value, found {lowering.spell(operand)}"
        )
    if taint == "untrusted":
        return Typed(tainted(taint, operand.type), operand.values)
    hidden = lowering.builder.emit("opaque", operand.value.width, operand.value)
    hidden.secret = True
    return Typed(tainted(taint, operand.type), (hidden,))


def declassify(lowering: Lowering, given: Given, node: ast.Call) -> Operand:
    operand, where = given[0]
    text_argument(lowering, given[1], "the reason")
    if not isinstance(operand, Typed) or taint_of(operand.type) != "secret":
        raise lowering.error("type-mismatch", where, f"declassify takes a Secret, found {lowering.spell(operand)}")
    shown = lowering.builder.emit("opaque", operand.value.width, operand.value, data=ir.DECLASSIFIED)
    return Typed(strip(operand.type), (shown,))


def as_secret(lowering: Lowering, given: Given, node: ast.Call) -> Operand:
    array, element = array_argument(lowering, given[0])
    if taint_of(element):
        raise lowering.error(
            "type-mismatch", given[0][1], f"as_secret takes a public array, found {describe(array.type)}"
        )
    assert isinstance(array.type, ArrayType)
    return Typed(ArrayType(QualifiedType("secret", element), array.type.length), array.values, array.in_frame)


def declassify_array(lowering: Lowering, given: Given, node: ast.Call) -> Operand:
    array, element = array_argument(lowering, given[0])
    text_argument(lowering, given[1], "the reason")
    if taint_of(element) != "secret":
        raise lowering.error(
            "type-mismatch", given[0][1], f"declassify_array takes an Array[Secret[T]], found {describe(array.type)}"
        )
    assert isinstance(array.type, ArrayType)
    return Typed(ArrayType(strip(element), array.type.length), array.values, array.in_frame)


def ord_(lowering: Lowering, given: Given, node: ast.Call) -> Operand:
    """Python's ord of one character: an int constant."""
    character = text_argument(lowering, given[0], "ord(...)")
    if len(character) != 1:
        raise lowering.error("type-mismatch", given[0][1], f"ord takes one character, found {len(character)}")
    return Integer(ord(character))


LIBRARY: Final[dict[str, Lower]] = {
    "size_of": size_of,
    "offset_of": offset_of,
    "address_of": address_of,
    "array_at": array_at,
    "frame_array": frame_array,
    "erase": erase,
    "text": text,
    "function_address": function_address,
    "stop": stop,
    "check_places": linked_bytes("linker.check_places"),
    "check_files": linked_bytes("linker.check_files"),
    "image_base": linked_address("linker.image_base"),
    "image_end": linked_address("linker.image_end"),
    "untrusted": untrusted,
    "secret": secret,
    "declassify": declassify,
    "as_secret": as_secret,
    "declassify_array": declassify_array,
    **WORD_FUNCTIONS,
}

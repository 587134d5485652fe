"""The functions of dsl.lang that programs call: one row each, and how it becomes IR."""

from __future__ import annotations

from typing import Any, Final

from dsl.compiler import ir
from dsl.compiler.arguments import NOTHING, Call, Lower, by_name
from dsl.compiler.arithmetic import WORD_FUNCTIONS
from dsl.compiler.diagnostics import suggestion
from dsl.compiler.memory import frame_slot, zero
from dsl.compiler.operands import Integer, Operand, Typed
from dsl.lang import intrinsics
from dsl.lang import types as t
from dsl.lang.addresses import HostVirtual
from dsl.lang.failure import DeclarationError
from dsl.lang.instruction import Field

HOST_VIRTUAL: Final = t.AddressType(HostVirtual)
BYTES: Final = t.ArrayType(t.U8)


# Memory


def stored_type(call: Call) -> t.Type:
    """The first argument: a type whose values lie in memory."""
    kind = call.type(0)
    try:
        _ = kind.size
    except DeclarationError:
        raise
    except TypeError as problem:
        raise call.error("type-mismatch", str(problem), argument=0) from None
    return kind


def size_of(call: Call) -> Operand:
    return Integer(stored_type(call).size)


def offset_of(call: Call) -> Operand:
    kind, name = call.type(0), call.text(1, "the field")
    if not isinstance(kind, t.StructType) or name not in kind.layout.fields:
        help_ = suggestion(name, kind.layout.fields) if isinstance(kind, t.StructType) else ""
        raise call.error("no-attribute", f"{kind} has no field '{name}'", help_, argument=1)
    return Integer(kind.layout.fields[name].offset)


def address_of(call: Call) -> Operand:
    (operand,) = call.operands
    if not isinstance(operand, Typed) or not isinstance(operand.type, t.StructType | t.ArrayType):
        text = f"only a Struct or an Array has an address, found {operand}"
        raise call.error("type-mismatch", text, argument=0)
    if isinstance(operand.type, t.StructType) and operand.type.optional:
        text, help_ = f"{operand} may have no address", "narrow it: if x is not None"
        raise call.error("not-narrowed", text, help_, argument=0)
    return Typed(HOST_VIRTUAL, operand.values[:1])


def array_at(call: Call) -> Operand:
    element, address = stored_type(call), call.typed(1, HOST_VIRTUAL)
    call.public(2, "an array's length")
    return Typed(t.ArrayType(element), (address.value, call.value(2, t.U64)))


def frame_array(call: Call) -> Operand:
    element, count = stored_type(call), call.operands[1]
    if not isinstance(count, Integer):
        text = f"a frame array's length must be an int constant, found {count}"
        raise call.error("static-argument", text, argument=1)
    if count.value < 1:
        raise call.error("literal-range", f"an array's length is at least 1, found {count.value}", argument=1)
    return frame_slot(call.lowering, t.ArrayType(element, count.value), call.node)


def erase(call: Call) -> Operand:
    """Zero a Struct or Array with accesses that no pass removes."""
    (operand,) = call.operands
    if isinstance(operand, Typed) and isinstance(operand.type, t.StructType) and not operand.type.optional:
        zero(call.lowering, operand.value, call.builder.constant(1), operand.type.size, volatile=True)
        return NOTHING
    array, kind = call.array(0)
    address, length = array.values
    zero(call.lowering, address, length, kind.element.size, volatile=True)
    return NOTHING


# What the linker and the program's texts bring


def text(call: Call) -> Operand:
    try:
        content = call.text(0, "text(...)").encode()
    except UnicodeEncodeError:
        raise call.error("literal-range", "a text is UTF-8, which has no surrogates", argument=0) from None
    if not content:
        raise call.error("literal-range", "a text has at least one character", argument=0)
    symbol = call.lowering.unit.constants.text_symbol(call.lowering.namespace["__name__"], content)
    builder = call.builder
    return Typed(BYTES, (builder.symbol(symbol), builder.constant(len(content))))


def function_address(call: Call) -> Operand:
    python: Any = call.python(0)
    if getattr(python, "__machine__", None) is None:
        raise call.error("not-machine", f"{call.operands[0]} is no machine function", argument=0)
    return Typed(HOST_VIRTUAL, (call.builder.symbol(call.lowering.unit.request(python)),))


def stop(call: Call) -> Operand:
    call.builder.finish("stop", [], call.text(0, "stop(...)"))
    return NOTHING


def linked_bytes(symbol: str) -> Lower:
    """An array that the linker makes: the bytes between two of its symbols."""

    def lower(call: Call) -> Operand:
        builder = call.builder
        begin = builder.symbol(symbol)
        return Typed(BYTES, (begin, builder.emit("sub", builder.symbol(f"{symbol}_end"), begin)))

    return lower


def linked_address(symbol: str) -> Lower:
    return lambda call: Typed(HOST_VIRTUAL, (call.builder.symbol(symbol),))


# Taints


def untrusted(call: Call) -> Operand:
    operand = public_value(call)
    return Typed(t.tainted("untrusted", operand.type), operand.values)


def secret(call: Call) -> Operand:
    operand = public_value(call)
    hidden = call.builder.emit("opaque", operand.value)
    hidden.secret = True
    return Typed(t.tainted("secret", operand.type), (hidden,))


def public_value(call: Call) -> Typed:
    (operand,) = call.operands
    if not isinstance(operand, Typed) or operand.taint or len(operand.values) != 1:
        raise call.error("type-mismatch", f"{call.name}(...) takes a public value, found {operand}", argument=0)
    return operand


def declassify(call: Call) -> Operand:
    operand = call.operands[0]
    call.reason(1)
    if not isinstance(operand, Typed) or operand.taint != "secret":
        raise call.error("type-mismatch", f"declassify takes a Secret, found {operand}", argument=0)
    return Typed(operand.plain, (call.builder.emit("opaque", operand.value, data=ir.DECLASSIFIED),))


def as_secret(call: Call) -> Operand:
    array, kind = call.array(0)
    if kind.element.taint:
        raise call.error("type-mismatch", f"as_secret takes a public array, found {array}", argument=0)
    return Typed(t.ArrayType(t.tainted("secret", kind.element), kind.length), array.values)


def declassify_array(call: Call) -> Operand:
    array, kind = call.array(0)
    call.reason(1)
    if kind.element.taint != "secret":
        text = f"declassify_array takes an Array[Secret[T]], found {array}"
        raise call.error("type-mismatch", text, argument=0)
    return Typed(t.ArrayType(kind.element.plain, kind.length), array.values)


def ord_(call: Call) -> Operand:
    """Python's ord of one character: an int constant."""
    character = call.text(0, "ord(...)")
    if len(character) != 1:
        raise call.error("type-mismatch", f"ord takes one character, found {len(character)}", argument=0)
    return Integer(ord(character))


# Fields of a VMCS


def constant_field(call: Call) -> tuple[t.WordType, ir.Value]:
    """The constant Field that the first argument names: its word and its encoding."""
    field = call.python(0)
    if not isinstance(field, Field):
        raise call.error("type-mismatch", f"expected a constant Field, found {call.operands[0]}", argument=0)
    return t.WordType(field.word), call.builder.constant(field.encoding)


def vmread(call: Call) -> Operand:
    word, encoding = constant_field(call)
    (found,) = call.builder.results(call.lowering.instruction(intrinsics.vmread, encoding), (64,))
    return Typed(word, (call.builder.resize(found, word.width),))


def vmwrite(call: Call) -> Operand:
    word, encoding = constant_field(call)
    value = call.typed(1, word).value
    call.lowering.instruction(intrinsics.vmwrite, encoding, call.builder.resize(value, 64))
    return NOTHING


LIBRARY: Final[dict[str, Lower]] = {
    **by_name(size_of, offset_of, address_of, array_at, frame_array, erase, text, function_address, stop),
    **by_name(untrusted, secret, declassify, as_secret, declassify_array, vmread, vmwrite),
    "check_places": linked_bytes("linker.check_places"),
    "check_files": linked_bytes("linker.check_files"),
    "image_base": linked_address("linker.image_base"),
    "image_end": linked_address("linker.image_end"),
    **WORD_FUNCTIONS,
}

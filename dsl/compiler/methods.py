"""Methods of values: words, addresses, Bits, Structs, Arrays, untrusted values."""

from __future__ import annotations

import ast
from typing import Any, Final

from dsl.compiler import ir
from dsl.compiler.arguments import NOTHING, Call, Lower, by_name, evaluate_arguments, lower_call
from dsl.compiler.builder import Loop
from dsl.compiler.conditions import choose, count_up, known_bool
from dsl.compiler.construct import with_fields
from dsl.compiler.diagnostics import suggestion
from dsl.compiler.fitting import coerce
from dsl.compiler.lower import Lowering
from dsl.compiler.memory import copy, displaced, fill, load, no_field, scaled, store, zero
from dsl.compiler.operands import Integer, Named, Operand, Place, Typed
from dsl.lang import intrinsics
from dsl.lang import types as t
from dsl.lang.addresses import HostVirtual
from dsl.lang.array import Array
from dsl.lang.bits import Bits
from dsl.lang.failure import OUT_OF_RANGE
from dsl.lang.staging import PerCpu
from dsl.lang.struct import Struct
from dsl.lang.taint import Secret, Untrusted


def method(lowering: Lowering, receiver: Operand, name: str, node: ast.Call) -> Operand:
    """Lower `receiver.name(...)`."""
    python, table = methods_of(receiver)
    if name in table:
        return lower_call(lowering, node, name, getattr(python, name), table[name], receiver, is_method=True)
    evaluate_arguments(lowering, node)
    help_ = suggestion(name, table) or (f"it has {', '.join(sorted(table))}" if table else "")
    if isinstance(receiver.plain, t.ArrayType) and name == "length":
        help_ = "it is a field: leave out the ()"
    if isinstance(receiver, Integer):
        help_ = f"give the literal a type: u64({receiver.value})"
    if isinstance(receiver, Typed) and isinstance(receiver.plain, t.FallibleType | t.StructType):
        raise no_field(lowering, receiver, name, node.func)
    raise lowering.error("no-attribute", node.func, f"{receiver} has no '{name}'", help_)


def methods_of(receiver: Operand) -> tuple[Any, dict[str, Lower]]:
    """What has the methods of a value (its Python class), of a class or of a per-CPU object; and what they become."""
    match receiver:
        case Named(python=PerCpu() as declared):
            return declared, by_name(current)
        case Named(python=type() as python) if issubclass(python, Struct):
            return python, by_name(at)
        case Named(python=type() as python) if issubclass(python, Bits):
            return python, by_name(from_raw)
    if receiver.taint == "untrusted":
        return Untrusted, UNTRUSTED_METHODS if isinstance(receiver.plain, t.WordType) else {"trusted": trusted}
    match receiver.plain:
        case t.WordType() if receiver.taint:
            return Secret, by_name(truncate)
        case _ if receiver.taint:
            return Secret, {}
        case t.WordType(python=python, signed=signed):
            return python, SIGNED_METHODS if signed else UNSIGNED_METHODS
        case t.AddressType(python=python):
            return python, ADDRESS_METHODS
        case t.BitsType(python=python):
            return python, BITS_METHODS
        case t.StructType(python=python, optional=False):
            return python, STRUCT_METHODS
        case t.ArrayType():
            return Array, ARRAY_METHODS
    return None, {}


# Words


def word_of(call: Call) -> t.WordType:
    """The type of the receiver, without its taint."""
    word = call.receiver.plain
    assert isinstance(word, t.WordType)
    return word


def same_taint(call: Call, kind: t.Type, *values: ir.Value) -> Typed:
    """A value with the receiver's taint."""
    return Typed(t.tainted(call.receiver.taint, kind), values)


def truncate(call: Call) -> Operand:
    target = call.type(0)
    word = word_of(call)
    if not isinstance(target, t.WordType) or target.signed != word.signed or target.width >= word.width:
        text = f"truncate takes a narrower word of {word}'s sign, found {target}"
        help_ = f"{target}(x) widens" if isinstance(target, t.WordType) else ""
        raise call.error("type-mismatch", text, help_, argument=0)
    return same_taint(call, target, call.builder.resize(call.receiver.value, target.width))


def as_other_sign(call: Call) -> Operand:
    word = word_of(call)
    return same_taint(call, (t.UNSIGNED if word.signed else t.SIGNED)[word.width], call.receiver.value)


def limited(operation: str) -> Lower:
    """`below` and `at_most`: the value if it is in range, else Failure. Out of range it is masked to 0, also when speculated."""

    def lower(call: Call) -> Operand:
        word = word_of(call)
        limit = call.value(0, word)
        builder, value = call.builder, call.receiver.value
        inside = builder.emit(f"{'s' if word.signed else 'u'}{operation}", value, limit)
        code = builder.emit("select", inside, builder.constant(0), builder.constant(OUT_OF_RANGE))
        wide = builder.emit("opaque", builder.emit("zext", inside, width=64))
        mask = builder.resize(builder.emit("neg", wide), word.width)
        return Typed(t.FallibleType(word), (code, builder.emit("and", value, mask)))

    return lower


def trusted(call: Call) -> Operand:
    call.reason(0)
    return Typed(call.receiver.plain, call.receiver.values)


# Addresses


def as_u64(call: Call) -> Operand:
    return same_taint(call, t.U64, call.receiver.value)


def low_mask(call: Call) -> ir.Value:
    """Alignment - 1; the alignment must be a power of two."""
    alignment = call.value(0, t.U64)
    builder = call.builder
    mask = builder.emit("sub", alignment, 1)
    single = builder.emit("eq", builder.emit("and", alignment, mask), 0)
    fits = builder.emit("and", single, builder.emit("ne", alignment, 0))
    text = f"the alignment {alignment.constant} is no power of two"
    call.lowering.require("literal-range", fits, "an alignment is a power of two", call.given[0][1], text)
    return mask


def align_down(call: Call) -> Operand:
    mask, builder = low_mask(call), call.builder
    return Typed(call.receiver.type, (builder.emit("and", call.receiver.value, builder.emit("not", mask)),))


def align_up(call: Call) -> Operand:
    mask, builder = low_mask(call), call.builder
    raised = builder.emit("add", call.receiver.value, mask)
    return Typed(call.receiver.type, (builder.emit("and", raised, builder.emit("not", mask)),))


def is_aligned(call: Call) -> Operand:
    mask, builder = low_mask(call), call.builder
    return same_taint(call, t.BOOL, builder.emit("eq", builder.emit("and", call.receiver.value, mask), 0))


# Classes and the per-CPU object


def at(call: Call) -> Typed:
    assert isinstance(call.subject, Named)
    return Typed(t.StructType(call.subject.python), call.typed(0, t.AddressType(HostVirtual)).values)


def from_raw(call: Call) -> Typed:
    assert isinstance(call.subject, Named)
    kind = t.BitsType(call.subject.python)
    return Typed(kind, call.typed(0, kind.word, literal=True).values)


def current(call: Call) -> Typed:
    """The current CPU's object: its own address is its first field, read through GS."""
    assert isinstance(call.subject, Named)
    python: Any = call.subject.python
    constants = call.lowering.unit.constants
    constants.per_cpu = constants.per_cpu or python
    if constants.per_cpu is not python:
        help_ = "GS leads to one Struct: give it both's fields"
        raise call.error("declaration", "the program has another per_cpu(T) already", help_)
    made = call.lowering.instruction(intrinsics.read_gs_u64, call.builder.constant(0))
    return Typed(python.__declaration__.type, call.builder.results(made, (64,)))


# Bits


def raw(call: Call) -> Operand:
    kind = call.receiver.plain
    assert isinstance(kind, t.BitsType)
    return Typed(kind.word, (call.receiver.value,))


def with_(call: Call) -> Operand:
    kind = call.receiver.type
    if not isinstance(kind, t.BitsType):
        raise call.error("type-mismatch", f"with_ works on plain Bits, found {kind}")
    return Typed(kind, (with_fields(call.lowering, kind, call.receiver.value, call.fields, call.node),))


# Structs


def struct_copy_from(call: Call) -> Operand:
    other = call.typed(0, call.receiver.type)
    size = call.receiver.type.size
    copy(call.lowering, call.receiver.value, other.value, call.builder.constant(1), size)
    return NOTHING


def clear(call: Call) -> Operand:
    zero(call.lowering, call.receiver.value, call.builder.constant(1), call.receiver.type.size)
    return NOTHING


# Arrays


def element_of(call: Call) -> t.Type:
    assert isinstance(call.receiver.type, t.ArrayType)
    return call.receiver.type.element


def require_room(call: Call, offset: ir.Value, size: ir.Value, argument: int | None = None) -> None:
    """Offset + size <= length, without a sum that could wrap: size <= length and offset <= length - size."""
    length = call.receiver.values[1]
    where = call.node if argument is None else call.given[argument][1]
    builder = call.lowering.at(where)
    fits = builder.emit("ule", size, length)
    behind = builder.emit("ule", offset, builder.emit("sub", length, size))
    first = "any offset" if offset.constant is None else offset.constant
    text = f"{size.constant} elements at {first} do not lie in an array of {length.constant}"
    call.lowering.require("index-range", fits, "index", where, text)
    call.lowering.require("index-range", behind, "index", where, text)


def slice_(call: Call) -> Operand:
    first, many = call.unsigned(0, "an offset"), call.unsigned(1, "a length")
    require_room(call, first, many)
    element, start = element_of(call), call.receiver.values[0]
    distance = scaled(call.lowering, first, element.size)
    if distance.constant != 0:
        start = call.builder.emit("add", start, distance)
    return Typed(t.ArrayType(element), (start, many))


def array_copy_from(call: Call) -> Operand:
    element, (address, length) = element_of(call), call.receiver.values
    if element.volatile:
        raise call.error("unsupported", f"{call.receiver} is copied element by element", "write the loop")
    other = call.typed(0, call.receiver.type.general)
    builder = call.builder
    builder.check(builder.emit("eq", length, other.values[1]), "copy of an array of another length")
    copy(call.lowering, address, other.values[0], length, element.size)
    return NOTHING


def array_fill(call: Call) -> Operand:
    """Every element becomes the value: one fill where its bytes are all equal, else a loop."""
    element, lowering = element_of(call), call.lowering
    if isinstance(element, t.StructType) or element.volatile:
        raise call.error("unsupported", f"{call.receiver} is not filled", "write the loop")
    value = call.typed(0, element)
    builder, (address, length) = call.builder, call.receiver.values
    known = value.value.constant
    if element.size == 1 or known == int.from_bytes(bytes([(known or 0) & 0xFF]) * element.size, "little"):
        fill(lowering, address, builder.resize(value.value, 8), length, element.size)
    else:
        where = call.given[0][1]

        def each(_loop: Loop, index: Typed) -> None:
            cell = builder.emit("add", address, scaled(lowering, index.value, element.size))
            store(lowering, Place(cell, 0, element, "an element"), value, where, where)

        lowering.at(where)
        count_up(lowering, "index", Typed(t.U64, (builder.constant(0),)), length, each)
    return NOTHING


def array_equals(call: Call) -> Operand:
    element, lowering = element_of(call), call.lowering
    if isinstance(element, t.QualifiedType | t.StructType):
        is_secret = element.taint == "secret"
        help_ = "compare secrets with constant_time_equal, word by word" if is_secret else ""
        code = "secret-leak" if is_secret else "type-mismatch"
        raise call.error(code, f"{call.receiver} is not compared as a whole", help_)
    arrays = (call.receiver, call.typed(0, call.receiver.type.general))
    builder = call.builder
    same_length, other_length = builder.branch(builder.emit("eq", *(array.values[1] for array in arrays)))
    builder.position = same_length
    differs = [other_length]

    def each(_loop: Loop, index: Typed) -> None:
        distance = scaled(lowering, index.value, element.size)
        left, right = (
            builder.load(builder.emit("add", array.values[0], distance), element.size * 8) for array in arrays
        )
        builder.position, different = builder.branch(builder.emit("eq", left, right))
        differs.append(different)

    count_up(lowering, "index", Typed(t.U64, (builder.constant(0),)), call.receiver.values[1], each)
    same = known_bool(lowering, builder.position, True)
    return choose(lowering, [same, known_bool(lowering, builder.join(differs), False)])


def byte_place(call: Call, word: t.WordType) -> Place:
    """`word` at a byte offset of an Array[u8]; its element's taint goes with it."""
    element, address = element_of(call), call.receiver.values[0]
    if element.plain != t.U8:
        text = f"only an Array[u8] has words at byte offsets, found {call.receiver}"
        raise call.error("type-mismatch", text, argument=0)
    offset = call.unsigned(0, "an offset")
    builder = call.lowering.at(call.given[0][1])
    require_room(call, offset, builder.constant(word.size), argument=0)
    kind = t.tainted(element.taint, word)
    return displaced(call.lowering, address, offset, kind, "bytes")


def load_bytes(width: int, big: bool = False) -> Lower:
    def lower(call: Call) -> Operand:
        loaded = load(call.lowering, byte_place(call, t.UNSIGNED[width]))
        return Typed(loaded.type, (call.builder.emit("bswap", loaded.value),)) if big else loaded

    return lower


def store_bytes(width: int, big: bool = False) -> Lower:
    def lower(call: Call) -> Operand:
        place = byte_place(call, t.UNSIGNED[width])
        operand, where = call.given[1]
        stored = coerce(call.lowering, operand, place.type, where)
        if big:
            stored = Typed(stored.type, (call.builder.emit("bswap", stored.value),))
        store(call.lowering, place, stored, call.node, where)
        return NOTHING

    return lower


UNSIGNED_METHODS: Final[dict[str, Lower]] = {"truncate": truncate, "as_signed": as_other_sign}
SIGNED_METHODS: Final[dict[str, Lower]] = {"truncate": truncate, "as_unsigned": as_other_sign}
UNTRUSTED_METHODS: Final = {"below": limited("lt"), "at_most": limited("le"), **by_name(trusted, truncate)}
ADDRESS_METHODS: Final = by_name(as_u64, align_down, align_up, is_aligned)
BITS_METHODS: Final = by_name(raw, with_)
STRUCT_METHODS: Final[dict[str, Lower]] = {"copy_from": struct_copy_from, "clear": clear}
ARRAY_METHODS: Final[dict[str, Lower]] = {
    "slice": slice_,
    "copy_from": array_copy_from,
    "fill": array_fill,
    "equals": array_equals,
    **{f"load_u{width}": load_bytes(width) for width in (16, 32, 64)},
    **{f"store_u{width}": store_bytes(width) for width in (16, 32, 64)},
    **{f"load_be{width}": load_bytes(width, big=True) for width in (32, 64)},
    **{f"store_be{width}": store_bytes(width, big=True) for width in (32, 64)},
}

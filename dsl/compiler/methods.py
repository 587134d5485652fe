"""Methods of values: words, addresses, Bits, Structs, Arrays, untrusted values."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from dsl.compiler import ir
from dsl.compiler.builder import Binding, Position
from dsl.compiler.conditions import choose
from dsl.compiler.diagnostics import Reported, suggestion
from dsl.compiler.fitting import coerce, public
from dsl.compiler.memory import copy, fill, load, no_field, scaled, store, zero, zero_elements
from dsl.compiler.operands import Integer, Named, Operand, Place, Typed
from dsl.compiler.shapes import (
    BOOL,
    NONE,
    SIGNED,
    U8,
    U64,
    UNSIGNED,
    bits_layout,
    describe,
    general,
    memory_size,
    strip,
    taint_of,
    tainted,
)
from dsl.lang.failure import OUT_OF_RANGE
from dsl.lang.types import (
    AddressType,
    ArrayType,
    BitsType,
    FallibleType,
    QualifiedType,
    StructType,
    Type,
    WordType,
)

if TYPE_CHECKING:
    from dsl.compiler.calls import Arguments
    from dsl.compiler.lower import Lowering

Method = Callable[["Lowering", Typed, "Arguments", ast.Call], Operand]


def method(lowering: Lowering, receiver: Operand, name: str, arguments: Arguments, node: ast.Call) -> Operand:
    """Lower `receiver.name(arguments)`."""
    if not isinstance(receiver, Typed):
        help_ = f"give the literal a type: u64({receiver.value})" if isinstance(receiver, Integer) else ""
        raise lowering.error("no-attribute", node.func, f"{lowering.spell(receiver)} has no '{name}'", help_)
    lowering.at(node)
    table = methods_of(receiver.type)
    if name in table:
        return table[name](lowering, receiver, arguments, node)
    raise missing_method(lowering, receiver, name, node, table)


def methods_of(kind: Type) -> dict[str, Method]:
    inner = strip(kind)
    if taint_of(kind) == "untrusted" and isinstance(inner, WordType):
        return UNTRUSTED_METHODS
    match inner:
        case WordType(signed=signed):
            return SIGNED_METHODS if signed else UNSIGNED_METHODS
        case AddressType():
            return ADDRESS_METHODS
        case BitsType():
            return BITS_METHODS
        case StructType(optional=False):
            return STRUCT_METHODS
        case ArrayType():
            return ARRAY_METHODS
    return {"trusted": trusted} if taint_of(kind) == "untrusted" else {}


def missing_method(
    lowering: Lowering, receiver: Typed, name: str, node: ast.Call, table: dict[str, Method]
) -> Reported:
    kind = strip(receiver.type)
    if isinstance(kind, FallibleType | StructType):
        return no_field(lowering, receiver, name, node.func)
    help_ = suggestion(name, table) or (f"it has {', '.join(sorted(table))}" if table else "")
    return lowering.error("no-attribute", node.func, f"{describe(receiver.type)} has no '{name}'", help_)


# Words


def truncate(lowering: Lowering, receiver: Typed, arguments: Arguments, node: ast.Call) -> Operand:
    ((operand, where),) = arguments.bind(lowering, node, "truncate", ["word"])
    target = lowering.unit.constants.class_type(lowering, operand.python if isinstance(operand, Named) else None, where)
    word = strip(receiver.type)
    assert isinstance(word, WordType)
    if not isinstance(target, WordType) or target.signed != word.signed or target.width >= word.width:
        text = f"truncate takes a narrower word of {describe(word)}'s sign, found {describe(target)}"
        raise lowering.error(
            "type-mismatch", where, text, f"{describe(target)}(x) widens" if isinstance(target, WordType) else ""
        )
    return Typed(tainted(taint_of(receiver.type), target), (lowering.at(node).resize(receiver.value, target.width),))


def as_other_sign(signed: bool) -> Method:
    def lower(lowering: Lowering, receiver: Typed, arguments: Arguments, node: ast.Call) -> Operand:
        arguments.bind(lowering, node, "this", [])
        word = strip(receiver.type)
        assert isinstance(word, WordType)
        return Typed(tainted(taint_of(receiver.type), (SIGNED if signed else UNSIGNED)[word.width]), receiver.values)

    return lower


def limited(operation: str) -> Method:
    """`below` and `at_most`: the value if it is in range, else Failure. Out of range it is masked to 0, also when speculated."""

    def lower(lowering: Lowering, receiver: Typed, arguments: Arguments, node: ast.Call) -> Operand:
        ((operand, where),) = arguments.bind(lowering, node, "a limit", ["limit"])
        word = strip(receiver.type)
        assert isinstance(word, WordType)
        limit = coerce(lowering, operand, word, where, literal=True)
        builder = lowering.at(node)
        inside = builder.emit(f"{'s' if word.signed else 'u'}{operation}", 1, receiver.value, limit.value)
        code = builder.emit("select", 64, inside, builder.constant(0, 64), builder.constant(OUT_OF_RANGE, 64))
        wide = builder.emit("opaque", 64, builder.emit("zext", 64, inside))
        mask = builder.resize(builder.emit("neg", 64, wide), word.width)
        return Typed(FallibleType(word), (code, builder.emit("and", word.width, receiver.value, mask)))

    return lower


def trusted(lowering: Lowering, receiver: Typed, arguments: Arguments, node: ast.Call) -> Operand:
    ((reason, where),) = arguments.bind(lowering, node, "trusted", ["reason"])
    if not isinstance(reason, Named) or not isinstance(reason.python, str) or not reason.python.strip():
        raise lowering.error(
            "type-mismatch", where, "trusted takes a reason in words", 'x.trusted("why any value is harmless")'
        )
    return Typed(strip(receiver.type), receiver.values)


# Addresses


def as_u64(lowering: Lowering, receiver: Typed, arguments: Arguments, node: ast.Call) -> Operand:
    arguments.bind(lowering, node, "as_u64", [])
    return Typed(tainted(taint_of(receiver.type), U64), receiver.values)


def low_mask(lowering: Lowering, arguments: Arguments, node: ast.Call, name: str) -> ir.Value:
    """Alignment - 1; the alignment must be a power of two."""
    ((operand, where),) = arguments.bind(lowering, node, name, ["alignment"])
    alignment = coerce(lowering, operand, U64, where, literal=True).value
    builder = lowering.at(node)
    mask = builder.emit("sub", 64, alignment, builder.constant(1, 64))
    if isinstance(alignment.data, int) and alignment.operation == "const":
        if alignment.data & (alignment.data - 1) or not alignment.data:
            raise lowering.error("literal-range", where, f"the alignment {alignment.data} is no power of two")
        return mask
    zero_ = builder.constant(0, 64)
    single = builder.emit("eq", 1, builder.emit("and", 64, alignment, mask), zero_)
    builder.check(
        builder.emit("and", 1, single, builder.emit("ne", 1, alignment, zero_)), "an alignment is a power of two"
    )
    return mask


def align_down(lowering: Lowering, receiver: Typed, arguments: Arguments, node: ast.Call) -> Operand:
    mask = low_mask(lowering, arguments, node, "align_down")
    builder = lowering.builder
    return Typed(receiver.type, (builder.emit("and", 64, receiver.value, builder.emit("not", 64, mask)),))


def align_up(lowering: Lowering, receiver: Typed, arguments: Arguments, node: ast.Call) -> Operand:
    mask = low_mask(lowering, arguments, node, "align_up")
    builder = lowering.builder
    raised = builder.emit("add", 64, receiver.value, mask)
    return Typed(receiver.type, (builder.emit("and", 64, raised, builder.emit("not", 64, mask)),))


def is_aligned(lowering: Lowering, receiver: Typed, arguments: Arguments, node: ast.Call) -> Operand:
    mask = low_mask(lowering, arguments, node, "is_aligned")
    builder = lowering.builder
    rest = builder.emit("and", 64, receiver.value, mask)
    return Typed(tainted(taint_of(receiver.type), BOOL), (builder.emit("eq", 1, rest, builder.constant(0, 64)),))


# Bits


def raw(lowering: Lowering, receiver: Typed, arguments: Arguments, node: ast.Call) -> Operand:
    arguments.bind(lowering, node, "raw", [])
    kind = strip(receiver.type)
    assert isinstance(kind, BitsType)
    return Typed(tainted(taint_of(receiver.type), bits_layout(kind.python).storage), receiver.values)


def with_(lowering: Lowering, receiver: Typed, arguments: Arguments, node: ast.Call) -> Operand:
    from dsl.compiler.construct import with_fields

    kind = receiver.type
    if not isinstance(kind, BitsType):
        raise lowering.error("type-mismatch", node, f"with_ works on plain Bits, found {describe(kind)}")
    if arguments.positional:
        raise lowering.error("argument-count", node, "with_ takes fields by name")
    return Typed(kind, (with_fields(lowering, kind.python, receiver.value, arguments, node),))


# Structs


def struct_copy_from(lowering: Lowering, receiver: Typed, arguments: Arguments, node: ast.Call) -> Operand:
    ((operand, where),) = arguments.bind(lowering, node, "copy_from", ["other"])
    other = coerce(lowering, operand, receiver.type, where)
    builder = lowering.at(node)
    copy(lowering, receiver.value, other.value, builder.constant(1, 64), memory_size(receiver.type))
    return Typed(NONE, ())


def clear(lowering: Lowering, receiver: Typed, arguments: Arguments, node: ast.Call) -> Operand:
    arguments.bind(lowering, node, "clear", [])
    zero(lowering, receiver.value, memory_size(receiver.type))
    return Typed(NONE, ())


# Arrays


def element_of(receiver: Typed) -> Type:
    assert isinstance(receiver.type, ArrayType)
    return receiver.type.element


def unsigned_argument(lowering: Lowering, operand: Operand, node: ast.AST, use: str) -> ir.Value:
    """A literal or an unsigned word of any width, as 64 bits."""
    public(lowering, operand, node, use)
    if isinstance(operand, Typed) and isinstance(operand.type, WordType) and not operand.type.signed:
        return lowering.at(node).resize(operand.value, 64)
    return coerce(lowering, operand, U64, node, literal=True).value


def require_room(lowering: Lowering, offset: ir.Value, size: ir.Value, length: ir.Value, node: ast.AST) -> None:
    """Offset + size <= length, without a sum that could wrap: size <= length and offset <= length - size."""
    builder = lowering.at(node)
    fits = builder.emit("ule", 1, size, length)
    behind = builder.emit("ule", 1, offset, builder.emit("sub", 64, length, size))
    numbers = [
        value.data for value in (offset, size, length) if value.operation == "const" and isinstance(value.data, int)
    ]
    if len(numbers) == 3 and numbers[0] + numbers[1] > numbers[2] and not lowering.dead:
        text = f"{numbers[1]} elements at {numbers[0]} do not lie in an array of {numbers[2]}"
        raise lowering.error("index-range", node, text)
    builder.check(fits, "index")
    builder.check(behind, "index")


def slice_(lowering: Lowering, receiver: Typed, arguments: Arguments, node: ast.Call) -> Operand:
    (offset, at), (count, count_at) = arguments.bind(lowering, node, "slice", ["offset", "count"])
    first = unsigned_argument(lowering, offset, at, "an offset")
    many = unsigned_argument(lowering, count, count_at, "a length")
    address, length = receiver.values
    require_room(lowering, first, many, length, node)
    element = element_of(receiver)
    distance = scaled(lowering, first, memory_size(element))
    zero_distance = distance.operation == "const" and distance.data == 0
    start = address if zero_distance else lowering.builder.emit("add", 64, address, distance)
    return Typed(ArrayType(element), (start, many), receiver.in_frame)


def is_volatile(element: Type) -> bool:
    return isinstance(element, QualifiedType) and element.qualifier in ("device", "shared")


def array_copy_from(lowering: Lowering, receiver: Typed, arguments: Arguments, node: ast.Call) -> Operand:
    ((operand, where),) = arguments.bind(lowering, node, "copy_from", ["other"])
    element = element_of(receiver)
    if is_volatile(element):
        raise lowering.error(
            "unsupported", node, f"{describe(receiver.type)} is copied element by element", "write the loop"
        )
    other = coerce(lowering, operand, general(receiver.type), where)
    builder = lowering.at(node)
    length = receiver.values[1]
    builder.check(builder.emit("eq", 1, length, other.values[1]), "copy of an array of another length")
    copy(lowering, receiver.values[0], other.values[0], length, memory_size(element))
    return Typed(NONE, ())


def array_fill(lowering: Lowering, receiver: Typed, arguments: Arguments, node: ast.Call) -> Operand:
    """Every element becomes the value: one fill where its bytes are all equal, else a loop."""
    ((operand, where),) = arguments.bind(lowering, node, "fill", ["value"])
    element = element_of(receiver)
    if isinstance(element, StructType) or is_volatile(element):
        raise lowering.error("unsupported", node, f"{describe(receiver.type)} is not filled", "write the loop")
    value = coerce(lowering, operand, element, where)
    builder = lowering.at(node)
    address, length = receiver.values
    size = memory_size(element)
    known = value.value.data if value.value.operation == "const" else None
    byte = known & 0xFF if isinstance(known, int) else 0
    if size == 1:
        fill(lowering, address, builder.resize(value.value, 8), length)
    elif known == 0:
        zero_elements(lowering, address, length, size)
    elif isinstance(known, int) and known == int.from_bytes(bytes([byte]) * size, "little"):
        fill(lowering, address, builder.constant(byte, 8), scaled(lowering, length, size))
    else:
        fill_loop(lowering, receiver, value, size, where)
    return Typed(NONE, ())


def fill_loop(lowering: Lowering, receiver: Typed, value: Typed, size: int, node: ast.AST) -> None:
    """For each element: store the value."""
    address, length = receiver.values

    def each(index: ir.Value) -> None:
        builder = lowering.builder
        place = Place(
            builder.emit("add", 64, address, scaled(lowering, index, size)), 0, element_of(receiver), "an element"
        )
        store(lowering, place, value, node, node)

    count_loop(lowering, length, each, node)


def count_loop(lowering: Lowering, length: ir.Value, each: Callable[[ir.Value], None], node: ast.AST) -> None:
    """Emit a loop over 0 <= index < length."""
    builder = lowering.at(node)
    hidden = "index "  # a local that no program can name
    builder.environment[hidden] = Binding((builder.constant(0, 64),), U64)
    loop = builder.open_loop({hidden}, {hidden: U64})
    (index,) = builder.environment[hidden].values
    yes, no = builder.branch(builder.emit("ult", 1, index, length))
    builder.position = yes
    each(index)
    builder.environment[hidden] = Binding((builder.emit("add", 64, index, builder.constant(1, 64)),), U64)
    builder.close_loop(loop)
    builder.position = builder.join([no])
    builder.environment.pop(hidden)


def array_equals(lowering: Lowering, receiver: Typed, arguments: Arguments, node: ast.Call) -> Operand:
    ((operand, where),) = arguments.bind(lowering, node, "equals", ["other"])
    element = element_of(receiver)
    if isinstance(element, QualifiedType | StructType):
        help_ = "compare secrets with constant_time_equal, word by word" if taint_of(element) == "secret" else ""
        code = "secret-leak" if taint_of(element) == "secret" else "type-mismatch"
        raise lowering.error(code, node, f"{describe(receiver.type)} is not compared as a whole", help_)
    other = coerce(lowering, operand, general(receiver.type), where)
    builder = lowering.at(node)
    same_length, other_length = builder.branch(builder.emit("eq", 1, receiver.values[1], other.values[1]))
    builder.position = same_length
    differs: list[Position] = [other_length]

    def each(index: ir.Value) -> None:
        distance = scaled(lowering, index, memory_size(element))
        left, right = (
            builder.emit(
                "load", memory_size(element) * 8, builder.emit("add", 64, array.values[0], distance), data=ir.Access()
            )
            for array in (receiver, other)
        )
        same, different = builder.branch(builder.emit("eq", 1, left, right))
        differs.append(different)
        builder.position = same

    count_loop(lowering, receiver.values[1], each, node)
    arms = [(builder.position, Typed(BOOL, (builder.constant(1, 1),)))]
    builder.position = builder.join(differs)
    return choose(lowering, [*arms, (builder.position, Typed(BOOL, (builder.constant(0, 1),)))])


def byte_place(lowering: Lowering, receiver: Typed, operand: Operand, word: WordType, node: ast.AST) -> Place:
    """`word` at a byte offset of an Array[u8]; its element's taint goes with it."""
    element = element_of(receiver)
    if strip(element) != U8:
        raise lowering.error(
            "type-mismatch", node, f"only an Array[u8] has words at byte offsets, found {describe(receiver.type)}"
        )
    offset = unsigned_argument(lowering, operand, node, "an offset")
    builder = lowering.at(node)
    address, length = receiver.values
    require_room(lowering, offset, builder.constant(word.width // 8, 64), length, node)
    kind = tainted(taint_of(element), word)
    if isinstance(offset.data, int) and offset.operation == "const":
        return Place(address, offset.data, kind, "bytes")
    return Place(builder.emit("add", 64, address, offset), 0, kind, "bytes")


def load_bytes(width: int, big: bool) -> Method:
    def lower(lowering: Lowering, receiver: Typed, arguments: Arguments, node: ast.Call) -> Operand:
        ((operand, where),) = arguments.bind(lowering, node, "this load", ["offset"])
        loaded = load(lowering, byte_place(lowering, receiver, operand, UNSIGNED[width], where))
        return Typed(loaded.type, (lowering.at(node).emit("bswap", width, loaded.value),)) if big else loaded

    return lower


def store_bytes(width: int, big: bool) -> Method:
    def lower(lowering: Lowering, receiver: Typed, arguments: Arguments, node: ast.Call) -> Operand:
        (operand, where), (value, value_at) = arguments.bind(lowering, node, "this store", ["offset", "value"])
        place = byte_place(lowering, receiver, operand, UNSIGNED[width], where)
        stored = coerce(lowering, value, place.type, value_at)
        if big:
            stored = Typed(stored.type, (lowering.at(node).emit("bswap", width, stored.value),))
        store(lowering, place, stored, node, value_at)
        return Typed(NONE, ())

    return lower


UNSIGNED_METHODS: Final[dict[str, Method]] = {"truncate": truncate, "as_signed": as_other_sign(signed=True)}
SIGNED_METHODS: Final[dict[str, Method]] = {"truncate": truncate, "as_unsigned": as_other_sign(signed=False)}
UNTRUSTED_METHODS: Final[dict[str, Method]] = {
    "below": limited("lt"),
    "at_most": limited("le"),
    "trusted": trusted,
    "truncate": truncate,
}
ADDRESS_METHODS: Final[dict[str, Method]] = {
    "as_u64": as_u64,
    "align_down": align_down,
    "align_up": align_up,
    "is_aligned": is_aligned,
}
BITS_METHODS: Final[dict[str, Method]] = {"raw": raw, "with_": with_}
STRUCT_METHODS: Final[dict[str, Method]] = {"copy_from": struct_copy_from, "clear": clear}
ARRAY_METHODS: Final[dict[str, Method]] = {
    "slice": slice_,
    "copy_from": array_copy_from,
    "fill": array_fill,
    "equals": array_equals,
    **{f"load_u{width}": load_bytes(width, big=False) for width in (16, 32, 64)},
    **{f"store_u{width}": store_bytes(width, big=False) for width in (16, 32, 64)},
    **{f"load_be{width}": load_bytes(width, big=True) for width in (32, 64)},
    **{f"store_be{width}": store_bytes(width, big=True) for width in (32, 64)},
}

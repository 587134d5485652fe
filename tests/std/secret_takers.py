"""Every function that takes a secret, found by looking at all of them; and arguments for each, from a secret and from what is public."""

from __future__ import annotations

import importlib
import inspect
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, get_args, get_origin, get_type_hints

from dsl.lang import Array, Record, Secret, Struct, size_of
from dsl.lang.types import ArrayType, QualifiedType, StructType
from dsl.std.edwards25519 import ENTRY_LIMBS
from dsl.std.edwards25519_tables import ENTRIES, SPACING, TEETH
from dsl.std.scalar25519 import DIGIT_COUNT, SIGN_COUNT

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDERS: Final = ("dsl/std", "boot", "vmm", "guests")
BYTES: Final = 32  # of an array that says nothing else
WORDS: Final = 4  # of one of words
NUMBER: Final = 1  # a public word
ROOM: Final = 1 << 14  # bytes of secrets that the arguments of one function take at most
SOURCE: Final = random.Random(25519)
PLACES: Final = [
    (SOURCE.randrange(1, 256, 2), SOURCE.randrange(256)) for _ in range(ROOM)
]  # an odd step meets every value
SECRETS: Final = range(258)
# What functions ask of their public arguments and of the lengths of arrays, by parameter, or by function and parameter.
SHAPES: Final = {
    "digest": 64, "code": 64, "signature": 64, "pseudorandom_key": 64, "block": 128,
    "wide": 8, "limbs": 5, "descriptor": 68, "certificate": 700, "message": 200, "words": 4,
    "write_device_certificate.out": 1024, "write_layer_certificate.out": 1024,
    "write_endorsement.out": 1024, "hkdf_extract.secret_input": 64,
    "multiply_words.product": 10, "multiply_words.left": 5, "multiply_words.right": 5,
    "subtract_words.left": 5, "subtract_words.right": 5, "subtract_order_once.words": 5,
    "compress.state": 8, "compress.constants": 80, "field_square_times.count": 3,
    "sha512_update.data": 300, "hmac_update.data": 300, "sha512.data": 300, "mix.pool": 32, "gather.pool": 32,
    "random_fill.out": 100, "row": 120, "entries": ENTRIES * ENTRY_LIMBS, "comb": 0, "select_comb.bits": (TEETH - 1) * SPACING + 1,
    "scalar_signed_bits.bits": SIGN_COUNT, "first_digits": DIGIT_COUNT, "second_digits": DIGIT_COUNT,
}  # fmt: skip


def functions() -> dict[str, Callable[..., Any]]:
    """Every machine function that takes a secret, by its symbol."""
    found = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            module = importlib.import_module(name)
            for function in vars(module).values():
                if hasattr(function, "__machine__") and function.__module__ == name and takes_secret(function):
                    found[f"{name}.{function.__name__}"] = function
    return found


def parameters(function: Callable[..., Any]) -> dict[str, Any]:
    """The types of a function's parameters."""
    hints = get_type_hints(function, include_extras=True)
    hints.pop("return", None)
    return hints


def takes_secret(function: Callable[..., Any]) -> bool:
    """Whether a parameter is a secret or an array of secrets, or an aggregate of dsl/std that holds some."""
    return any(is_secret(kind) for kind in parameters(function).values())


def is_secret(kind: Any) -> bool:
    """Whether a type brings a secret in."""
    if get_origin(kind) is Secret:
        return True
    if get_origin(kind) is Array:
        return is_secret(get_args(kind)[0])
    is_aggregate = inspect.isclass(kind) and issubclass(kind, Struct | Record) and kind.__module__.startswith("dsl.std")
    return is_aggregate and any(is_secret(field) for field in get_type_hints(kind, include_extras=True).values())


def stream_of(number: int) -> bytes:
    """One of the 258 secrets: zeros, ones, and 256 that look random, which have at each place each value of a byte once."""
    if number < 2:
        return bytes([0, 0xFF][number : number + 1]) * ROOM
    return bytes((step * number + start) & 0xFF for step, start in PLACES)


class Arguments:
    """The arguments of one function: what is secret from a stream of ROOM bytes, what is public the same each time.

    components: the System V components; buffers: what lies where. is_varied: public arrays hold noise, too, not small numbers.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        stream: bytes,
        place: int,
        shapes: Mapping[str, int] = SHAPES,
        is_varied: bool = False,
    ) -> None:
        self.function = function
        self.shapes = shapes
        self.is_varied = is_varied
        self.stream = stream
        self.taken = 0
        self.place = place
        self.buffers: list[tuple[int, bytes]] = []
        self.components: list[int] = []
        for name, kind in parameters(function).items():
            self.components += self.values(name, kind)

    def values(self, name: str, kind: Any) -> list[int]:
        """The components of one argument."""
        if get_origin(kind) is Array:
            return self.array(name, get_args(kind)[0])
        if get_origin(kind) is Secret:
            return [int.from_bytes(self.secret(get_args(kind)[0].width // 8), "little")]
        if issubclass(kind, Record):
            fields = get_type_hints(kind, include_extras=True).items()
            return [value for field, inner in fields for value in self.values(field, inner)]
        if issubclass(kind, Struct):
            return [self.put(self.content(kind))]
        return [self.shape(name, NUMBER)]

    def shape(self, name: str, otherwise: int) -> int:
        return self.shapes.get(f"{self.function.__name__}.{name}", self.shapes.get(name, otherwise))

    def array(self, name: str, element: Any) -> list[int]:
        """Address and length of an array."""
        inner = get_args(element)[0] if get_args(element) else element
        length = self.shape(name, BYTES if inner.width == 8 else WORDS)
        size = length * inner.width // 8
        content = self.secret(size) if get_origin(element) is Secret or self.is_varied else b"\1" * size
        return [self.put(content), length]

    def content(self, kind: Any) -> bytes:
        """A Struct's bytes: its secret fields from the stream, the others zero."""
        filled = filled_bytes(StructType(kind, False), self.is_varied)
        return b"".join(self.secret(1) if is_filled else b"\0" for is_filled in filled)

    def secret(self, size: int) -> bytes:
        self.taken += size
        assert self.taken <= len(self.stream)
        return self.stream[self.taken - size : self.taken]

    def put(self, content: bytes) -> int:
        """The address where some bytes lie."""
        self.buffers.append((self.place, content))
        self.place += -(-(len(content) + 1) // 4096) * 4096
        return self.buffers[-1][0]


def filled_bytes(kind: Any, with_arrays: bool) -> list[bool]:
    """For each byte of a field's type: whether it is secret, or with_arrays and part of an array."""
    match kind:
        case QualifiedType(qualifier="secret", inner=inner):
            return [True] * inner.size
        case ArrayType(length=length) if length is not None and with_arrays:
            return [True] * kind.size
        case ArrayType(element=element, length=length) if length is not None:
            return filled_bytes(element, with_arrays) * length
        case StructType(python=python):
            found = [False] * size_of(python)
            for field in python.__layout__.fields.values():
                found[field.offset : field.offset + field.size] = filled_bytes(field.type, with_arrays)[: field.size]
            return found
    return [False] * kind.size

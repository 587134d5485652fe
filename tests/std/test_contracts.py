"""Each routine alone does what its model does: for arrays that are too short, too, and for numbers that are none of its own.

What CPython does is found once and kept: it does not depend on the emitted code.
"""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Callable, Iterator
from typing import Any, Final, get_args, get_origin

import pytest

from dsl.lang import Array, CheckFailed, Record, Stopped, Struct
from dsl.lang.types import StructType
from dsl.std import dice, ed25519, scalar25519, sha256, sha256_bulk, sha512, x509
from dsl.std.edwards25519_tables import SPACING, TEETH
from tests.std.inside import places
from tests.std.secret_takers import ROOT, SHAPES, Arguments, functions, parameters, stream_of
from tests.worlds import Argument, CPython, FailedCheck, Native, World, element_size

# Routines that take no secret, with lengths of their arrays, and numbers.
PUBLIC: Final[dict[Callable[..., Any], dict[str, int]]] = {
    dice.derive_identifier: {},
    dice.set_layer_inputs: {},
    dice.write_configuration: {},
    ed25519.ed25519_verify: {},
    scalar25519.add_sixteen: {},
    scalar25519.scalar_digits: {"digits": scalar25519.DIGIT_COUNT},
    sha256.sha256: {},
    sha256.sha256_begin: {},
    sha256.sha256_finish: {},
    sha256.sha256_update: {"data": 200},
    sha256_bulk.bulk_update: {"data": 200},
    x509.fill_names: {"issuer": 20, "subject": 20, "identifiers": x509.LAYER_IDENTIFIERS},
    x509.write_hex: {"out": 40, "data": 20},
}
HARDWARE: Final = ("find_generator", "hardware_word", "gather", "random_start", "random_fill")  # see test_random.py
KEYS: Final = (stream_of(2), stream_of(1))
NUMBERS: Final = (0, 1, 2, 7, 8, 31, 63, 64, 65, 99, 100, 101, 111, 112, 127, 128, 255, 660, 1 << 32, (1 << 64) - 1)
HASHED: Final = (  # what SHA-512 bounds
    *("expand_seed.seed", "hash_challenge.message", "hash_nonce.message", "hkdf_expand.information", "hmac.message"),
    *("hmac_update.data", "sha512.data", "sha512_update.data"),
)
ENDS: Final = {  # lengths at which something just fits, in addition to those that every array is given
    "write_configuration.name": [dice.VERSION_OFFSET - dice.NAME_OFFSET, 68 - dice.NAME_OFFSET + 1],
    "derive_identifier.identifier": [64],
    "write_device_certificate.out": [len(x509.DEVICE.content)],
    "write_layer_certificate.out": [len(x509.LAYER.content)],
    "write_endorsement.out": [len(x509.ENDORSEMENT.content)],
    "fill_names.certificate": [
        x509.SERIAL + 20,
        x509.ISSUER_NAME + 40,
        x509.SUBJECT_NAME + 40,
        x509.PUBLIC_KEY + 32,
        x509.LAYER_IDENTIFIERS + 20,
        x509.LAYER_IDENTIFIERS + x509.SUBJECT_AFTER_ISSUER + 20,
    ],
    **{name: [(sha512.BLOCKS_MOST + 1) * sha512.BLOCK_SIZE] for name in HASHED},
    "sha256_finish.digest": [30, 32],
    "sha512_finish.digest": [62, 64],
    "select_comb.bits": [tooth * SPACING + 1 for tooth in range(1, TEETH)],
}
NOISE: Final = hashlib.shake_256(b"behind").digest(1 << 17)
FEW: Final = 12  # elements: every length below is tried
STREAMED: Final = (1, 55, 56, 63, 64, 100, 111, 112, 127, 128, 191)
STOPS: Final = "stops"
STD: Final = f"{ROOT}/dsl/std/"
EXPECTED: Final[dict[str, list[tuple[Any, ...]]]] = {}


def is_tried(function: Callable[..., Any]) -> bool:
    """Whether a routine is one of the language, in dsl/std, and takes what a test can give."""
    kinds = parameters(function).values()
    has_records = any(isinstance(kind, type) and issubclass(kind, Record) for kind in kinds)
    is_kernel = function.__machine__.kernel is not None  # type: ignore[attr-defined]
    return not is_kernel and not has_records and function.__name__ not in HARDWARE


ALL_SHAPES: Final = SHAPES | {
    f"{function.__name__}.{name}": value for function, shapes in PUBLIC.items() for name, value in shapes.items()
}
TRIED: Final = {f"{function.__module__}.{function.__name__}": function for function in PUBLIC} | {
    symbol: function for symbol, function in functions().items() if symbol.startswith("dsl.std.") and is_tried(function)
}


def arguments(function: Callable[..., Any], key: bytes, is_varied: bool = False) -> list[Argument]:
    """Arguments that it takes; is_varied: as far as numbers in public arrays are free."""
    made = Arguments(function, key, 0, ALL_SHAPES, is_varied)
    contents = iter(made.buffers)
    components = iter(made.components)
    found: list[Argument] = []
    for kind in parameters(function).values():
        first = next(components)
        is_array = get_origin(kind) is Array
        if is_array or (isinstance(kind, type) and issubclass(kind, Struct)):
            _ = next(components) if is_array else 0
            found.append(bytearray(next(contents)[1]))
        else:
            found.append(first)
    return found


def cases(function: Callable[..., Any]) -> Iterator[list[Argument]]:
    """Good arguments; noise; then each array of other lengths, each public number another one."""
    for key in KEYS:
        yield arguments(function, key)
    yield arguments(function, KEYS[0], is_varied=True)
    good = arguments(function, KEYS[0])
    for index, ((name, kind), value) in enumerate(zip(parameters(function).items(), good, strict=True)):
        others: list[Argument] = []
        if isinstance(value, int):
            limit = 8 if get_origin(kind) is None and kind.width == 8 else 64
            others = [number for number in NUMBERS if get_origin(kind) is None and number < 1 << limit]
        elif get_origin(kind) is Array:
            size = element_size(get_args(kind)[0])
            count = len(value) // size
            lengths = {0, 1, 8, 16, 24, 60, 80, 90, count // 2, count - 8, count - 1} & set(range(count)) | {
                count + 1,
                130,
                300,
            }
            lengths |= set(range(count if count < FEW else 0))
            lengths |= {end - below for end in ENDS.get(f"{function.__name__}.{name}", []) for below in (0, 1)}
            others = [bytearray((bytes(value) + NOISE)[: length * size]) for length in sorted(lengths)]
        else:
            others = [with_lengths(kind, bytes(value), length) for length in STREAMED if lengths_of(kind)]
        for other in others:
            changed = [*good[:index], other, *good[index + 1 :]]
            yield changed
            if get_origin(kind) is not Array and not isinstance(
                value, int
            ):  # what waits in a stream, and a little more
                kinds = parameters(function).values()
                yield [
                    each[:20] if get_origin(given) is Array and not isinstance(each, int) else each
                    for each, given in zip(changed, kinds, strict=True)
                ]


def lengths_of(kind: Any, offset: int = 0) -> list[int]:
    """Where a Struct counts the bytes of a stream."""
    found = [offset + field.offset for name, field in kind.__layout__.fields.items() if name == "length"]
    for field in kind.__layout__.fields.values():
        if isinstance(field.type, StructType):
            found += lengths_of(field.type.python, offset + field.offset)
    return found


def with_lengths(kind: Any, content: bytes, length: int) -> bytearray:
    """A Struct's bytes with another number there."""
    changed = bytearray(content)
    for offset in lengths_of(kind):
        changed[offset : offset + 8] = length.to_bytes(8, "little")
    return changed


def outcome(world: World, function: Callable[..., Any], given: list[Argument]) -> tuple[Any, ...]:
    """The result and what the arguments are then; or the file and line where a check fails."""
    copies = [value if isinstance(value, int) else bytearray(value) for value in given]
    try:
        return world.call(function, *copies), [bytes(value) for value in copies if not isinstance(value, int)]
    except FailedCheck:
        assert isinstance(world, Native)
        loaded = world.code(function)[0]
        linked = loaded.program.linked
        trap = next(trap for offset, trap in linked.checks if linked.base + offset == loaded.stopped_at)
        return STOPS, trap.file, trap.line
    except (CheckFailed, Stopped) as error:
        rows = [row for row in traceback.extract_tb(error.__traceback__) if row.filename.startswith(STD)]
        return STOPS, rows[-1].filename.removeprefix(f"{ROOT}/"), rows[-1].lineno


def expected_of(symbol: str) -> list[tuple[Any, ...]]:
    """What a routine does under CPython in each case."""
    if symbol not in EXPECTED:
        EXPECTED[symbol] = [outcome(CPython(), TRIED[symbol], case) for case in cases(TRIED[symbol])]
    return EXPECTED[symbol]


@pytest.mark.t1
def test_good_arguments_are_taken() -> None:
    """Of every routine. This test asks all models first, so that the next ones cost what the emitted code costs."""
    for symbol in TRIED:
        assert not any(expected[0] == STOPS for expected in expected_of(symbol)[: len(KEYS)]), symbol


@pytest.mark.t1
@pytest.mark.parametrize("symbol", TRIED)
def test_a_routine_is_its_model(symbol: str) -> None:
    """The same result and memory, or a failed check on the same line; in every program."""
    function = TRIED[symbol]
    for world in places(function):
        for case, expected in zip(cases(function), expected_of(symbol), strict=True):
            assert outcome(world, function, case) == expected, case

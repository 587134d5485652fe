"""The generator is HMAC-DRBG over its stated sources, and fails when the hardware does."""

from __future__ import annotations

import hashlib
import hmac as host_hmac
from collections.abc import Callable, Iterator
from itertools import chain, count, repeat
from typing import Any, Final

import pytest
from unicorn import x86_const as x86

from dsl.lang import Failure, HostVirtual, Machine, array_at, as_secret, size_of, u8
from dsl.std.random import NO_GENERATOR, NOT_READY, REQUEST_LIMIT, STUCK, TRIES, RandomState, random_fill, random_start
from tests.std.ported import MEMORY, Ported
from tests.std.spoiled import spoil_after_calls

Leaves = dict[tuple[int, int], tuple[int, int, int, int]]
RDSEED_ONLY: Final[Leaves] = {(0, 0): (7, 0, 0, 0), (7, 0): (0, 1 << 18, 0, 0), (1, 0): (0, 0, 0, 0)}
RDRAND_ONLY: Final[Leaves] = {(0, 0): (7, 0, 0, 0), (7, 0): (0, 0, 0, 0), (1, 0): (0, 0, 1 << 30, 0)}
RDRAND_OF_OLD: Final[Leaves] = {(0, 0): (6, 0, 0, 0), (7, 0): (0, 1 << 18, 0, 0), (1, 0): (0, 0, 1 << 30, 0)}
ALL_BUT_THESE: Final = (1 << 32) - 1
NEITHER: Final[Leaves] = {
    (0, 0): (7, 0, 0, 0),
    (7, 0): (ALL_BUT_THESE, ALL_BUT_THESE ^ 1 << 18, ALL_BUT_THESE, ALL_BUT_THESE),
    (1, 0): (ALL_BUT_THESE, ALL_BUT_THESE, ALL_BUT_THESE ^ 1 << 30, ALL_BUT_THESE),
}
OLD_CPU: Final[Leaves] = {(0, 0): (5, 0, 0, 0), (1, 0): (0, 0, 0, 0)}
TIME: Final = 0x1122_3344_FFFF_FF00  # of the first RDTSC, less one
STATE_SIZE: Final = size_of(RandomState)
NOTHING_YET: Final = b"\xa5" * 128 + bytes(STATE_SIZE - 128)  # a state whose key and value are of another generator
SECRET_PLACE: Final = MEMORY + 0x1000
OUT_PLACE: Final = MEMORY + 0x2000


def word(number: int) -> int:
    """The hardware's words: no byte of one is that of another."""
    return number * 0x0123_4567_89AB_CDEF % (1 << 64)


class Modelled:
    """A generator under CPython. numbers: what the hardware gives, None: nothing ready. used: the instructions that were asked."""

    def __init__(self, leaves: Leaves, numbers: Iterator[int | None]) -> None:
        self.machine = Machine()
        self.machine.cpuid.update(leaves)
        self.machine.cpu.time = TIME
        self.numbers = numbers
        self.machine.random = lambda: next(self.numbers)
        self.machine.memory.map(MEMORY, 0x3000, NOTHING_YET)

    def start(self, boot_secret: bytes) -> int:
        """The code of its failure, or 0."""
        self.machine.memory.write(SECRET_PLACE, boot_secret)
        return self.run(random_start, SECRET_PLACE, len(boot_secret))

    def fill(self, size: int) -> tuple[int, bytes]:
        """The same, and what was filled in; around it nothing changed."""
        self.machine.memory.write(OUT_PLACE, b"\xcc" * (REQUEST_LIMIT + 16))
        failed = self.run(random_fill, OUT_PLACE + 8, size)
        out = self.machine.memory.read(OUT_PLACE, REQUEST_LIMIT + 16)
        assert out[:8] + out[8 + size :] == b"\xcc" * (len(out) - size)
        return failed, out[8 : 8 + size]

    def run(self, function: Callable[..., Any], place: int, size: int) -> int:
        """One call on the state and an array."""
        with self.machine:
            data: Any = array_at(u8, HostVirtual(place), size)
            result = function(
                RandomState.at(HostVirtual(MEMORY)), as_secret(data) if function is random_start else data
            )
        return int(result.code) if isinstance(result, Failure) else 0


class Emitted(Modelled):
    """The same of the emitted bytes, in Unicorn."""

    def __init__(self, leaves: Leaves, numbers: Iterator[int | None]) -> None:
        self.numbers = numbers
        self.time = TIME
        self.leaves = leaves
        self.used: set[str] = set()
        self.state = NOTHING_YET
        self.worlds = {function: self.world(function) for function in (random_start, random_fill)}

    def world(self, function: Callable[..., Any]) -> Ported:
        """The function in a machine with this hardware."""
        world = Ported(function)
        engine = world.engine

        def register(name: str) -> int:
            return int(getattr(x86, f"UC_X86_REG_{name.strip().upper()}"))

        def give(text: str) -> None:
            mnemonic, name = text.split()
            self.used.add(mnemonic)
            number = next(self.numbers)
            engine.reg_write(register(name), number or 0)
            flags = engine.reg_read(x86.UC_X86_REG_RFLAGS)
            engine.reg_write(x86.UC_X86_REG_RFLAGS, flags & ~1 | (number is not None))

        def tell_time(_text: str) -> None:
            self.time += 1
            engine.reg_write(x86.UC_X86_REG_RDX, self.time >> 32)
            engine.reg_write(x86.UC_X86_REG_RAX, self.time & (1 << 32) - 1)

        def identify(_text: str) -> None:
            leaf = engine.reg_read(x86.UC_X86_REG_EAX), engine.reg_read(x86.UC_X86_REG_ECX)
            for name, value in zip(("RAX", "RBX", "RCX", "RDX"), self.leaves[leaf], strict=True):
                engine.reg_write(register(name), value)

        for mnemonic in ("rdrand", "rdseed"):
            world.replace(mnemonic, give)
        spoil_after_calls(world.emulated)
        world.replace("rdtsc", tell_time)
        world.replace("cpuid", identify)
        return world

    def start(self, boot_secret: bytes) -> int:
        world = self.worlds[random_start]
        state, data = world.write(0, self.state), world.write(0x1000, boot_secret)
        failed = world.call(state, data, len(boot_secret))
        self.state = world.get(0, STATE_SIZE)
        return failed

    def fill(self, size: int) -> tuple[int, bytes]:
        world = self.worlds[random_fill]
        state, out = world.write(0, self.state), world.write(0x2000, b"\xcc" * (REQUEST_LIMIT + 16))
        failed = world.call(state, out + 8, size)
        self.state = world.get(0, STATE_SIZE)
        around = world.get(0x2000, REQUEST_LIMIT + 16)
        assert around[:8] + around[8 + size :] == b"\xcc" * (len(around) - size)
        return failed, around[8 : 8 + size]


generators: Final = pytest.mark.parametrize(
    "make", [pytest.param(Modelled, marks=pytest.mark.t0), pytest.param(Emitted, marks=pytest.mark.t1)]
)
Make = Callable[[Leaves, Iterator[int | None]], Modelled]


def words() -> Iterator[int]:
    """What the hardware gives where all is well."""
    return map(word, count(1))


class Reference:
    """HMAC-DRBG (SP 800-90A, 10.1.2) by the host's library, over `words` and times that follow each other."""

    def __init__(self, boot_secret: bytes) -> None:
        self.key, self.value, self.count = bytes(64), b"\x01" * 64, 0
        self.update(self.pool(8) + boot_secret)

    def pool(self, words: int) -> bytes:
        """The next words, each with its time."""
        numbers = range(self.count + 1, self.count + words + 1)
        self.count += words
        return b"".join(
            word(number).to_bytes(8, "little") + (TIME + number).to_bytes(8, "little") for number in numbers
        )

    def code(self, message: bytes) -> bytes:
        """HMAC under the present key."""
        return host_hmac.new(self.key, message, hashlib.sha512).digest()

    def update(self, data: bytes) -> None:
        """HMAC_DRBG_Update with data."""
        for separator in (b"\0", b"\1"):
            self.key = self.code(self.value + separator + data)
            self.value = self.code(self.value)

    def fill(self, size: int) -> bytes:
        """HMAC_DRBG_Generate with fresh words as additional input."""
        fresh, out = self.pool(2), b""
        self.update(fresh)
        while len(out) < size:
            self.value = self.code(self.value)
            out += self.value
        self.update(fresh)
        return out[:size]


@generators
@pytest.mark.parametrize("leaves", [RDSEED_ONLY, RDRAND_ONLY, RDRAND_OF_OLD], ids=["rdseed", "rdrand", "old"])
def test_it_is_hmac_drbg(make: Make, leaves: Leaves) -> None:
    """Requests of several sizes give what the reference gives, byte by byte, from the instruction that the processor has."""
    generator = make(leaves, words())
    assert generator.start(bytes(range(32))) == 0
    reference = Reference(bytes(range(32)))
    for size in (1, 64, 63, 65, 128, 100, 0, 192, 255, 256):
        assert generator.fill(size) == (0, reference.fill(size))
    if isinstance(generator, Emitted):
        assert generator.used == {"rdseed" if leaves is RDSEED_ONLY else "rdrand"}


@generators
@pytest.mark.parametrize("secret", [b"", b"another", bytes(300)], ids=len)
def test_the_boot_secret_counts(make: Make, secret: bytes) -> None:
    """Secrets of any length, none among them, go in whole; a generator that is started again forgets what it was."""
    generator = make(RDRAND_ONLY, words())
    reference = Reference(secret)
    assert generator.start(secret) == 0
    assert generator.fill(32) == (0, reference.fill(32))
    generator.numbers = words()
    assert generator.start(b"once more") == 0
    reference.key, reference.value = bytes(64), b"\x01" * 64
    number = reference.count
    pool = b"".join(
        word(index).to_bytes(8, "little") + (TIME + number + index).to_bytes(8, "little") for index in range(1, 9)
    )
    reference.update(pool + b"once more")
    drawn = generator.fill(8)
    fresh = b"".join(
        word(index).to_bytes(8, "little") + (TIME + number + index).to_bytes(8, "little") for index in (9, 10)
    )
    reference.update(fresh)
    assert drawn == (0, reference.code(reference.value)[:8])


@generators
@pytest.mark.parametrize("leaves", [NEITHER, OLD_CPU], ids=["neither", "old"])
def test_no_generator(make: Make, leaves: Leaves) -> None:
    """A CPU without either instruction fails by name."""
    assert make(leaves, words()).start(b"x") == NO_GENERATOR


@generators
@pytest.mark.parametrize("number", [0, (1 << 64) - 1, None], ids=["zeros", "ones", "repeated"])
def test_stuck_generator(make: Make, number: int | None) -> None:
    """All zeros, all ones, and a number that comes twice running are refused, once, at the start and later; nothing is given out."""
    generator = make(RDRAND_ONLY, words())
    assert generator.start(b"") == 0
    for last in ([], [word(100)]):
        generator.numbers = chain(last, [number if number is not None else [word(8), *last][-1]], words())
        assert generator.fill(16) == (STUCK, b"\xcc" * 16)
    generator.numbers = chain([word(200), number if number is not None else word(200)], words())
    assert generator.start(b"") == STUCK


@generators
def test_all_but_one_bit_is_no_stuck_word(make: Make) -> None:
    """A word with one bit clear, one bit set, or like the last but one is as good as any."""
    generator = make(RDSEED_ONLY, chain(*([1 << bit, (1 << 64) - 1 ^ 1 << bit] * 2 for bit in range(64))))
    assert generator.start(b"") == 0
    for _ in range(20):
        assert generator.fill(8)[0] == 0


@generators
def test_generator_that_is_never_ready(make: Make) -> None:
    """It is asked again, but not for ever."""
    asked = iter(range(10 * TRIES))
    generator = make(RDSEED_ONLY, (None for _ in asked))
    assert generator.start(b"x") == NOT_READY
    assert next(asked) == TRIES
    generator.numbers = words()
    assert generator.start(b"") == 0
    generator.numbers = repeat(None)
    assert generator.fill(3) == (NOT_READY, b"\xcc" * 3)


@generators
def test_generator_that_is_ready_late(make: Make) -> None:
    """A number that comes at the last try is taken."""
    late = chain.from_iterable(chain(repeat(None, TRIES - 1), [word(number)]) for number in range(1, 20))
    generator = make(RDSEED_ONLY, late)
    assert generator.start(b"") == 0
    assert generator.fill(64) == (0, Reference(b"").fill(64))

"""Bad hypercalls: numbers, addresses and sizes near every boundary. They are attempts: a machine without a monitor refuses all."""

from __future__ import annotations

from typing import Final

from dsl.lang import Struct, address_of, machine, static, static_array, text, u8, u64, upto
from dsl.lang.intrinsics import rdtsc
from guests.intruder.attempt import PROBE
from guests.intruder.report import report, report_breach
from guests.intruder.snippets import VMCALL_ROW, run
from vmm.abi import ABI_VERSION, TRANSFER_LIMIT, Hypercall, Status

CALLS: Final = 4096
CHECK_EVERY: Final = 64
STATUS_COUNT: Final = 7  # OK to NO_ENTROPY
LOW_FREE: Final = 0xE000  # below lies memory that holds nothing of ours
EDGE: Final = 16  # deltas are below
BUFFER_SIZE: Final = 8192


class Generator(Struct):
    """A xorshift generator's state, and the size of our memory."""

    state: u64
    memory_size: u64


GENERATOR: Final = static(Generator)
BUFFER: Final = static_array(u8, BUFFER_SIZE, align=4096)


@machine
def draw() -> u64:
    """Return the next random number (xorshift64)."""
    state = GENERATOR.state
    state ^= state << 13
    state ^= state >> 7
    state ^= state << 17
    GENERATOR.state = state
    return state


@machine
def boundary() -> u64:
    """Return a number near a power of two, the end of memory, our buffer, or a record's size: at most 16 away, often exactly there."""
    choice = draw() & 7
    value = u64(1) << (draw() & 63)
    if choice == 0:
        value = GENERATOR.memory_size
    elif choice == 1:
        value = address_of(BUFFER).as_u64()
    elif choice == 2:
        value = u64(TRANSFER_LIMIT)
    elif choice == 3:
        value = u64(0)
    delta = draw() & (EDGE - 1)
    if draw() & 1 != 0:
        return value
    return value + delta if draw() & 1 != 0 else value - delta


@machine
def harmless_address(address: u64) -> u64:
    """Keep an address from naming what we live on (page tables, code, stack): such a one becomes a place in the buffer."""
    if address < LOW_FREE or address >= GENERATOR.memory_size - EDGE:
        return address
    return address_of(BUFFER).as_u64() + (address & 0xFF)


@machine
def call_number() -> u64:
    """Return a hypercall's number: mostly a real one."""
    return draw() & 7 if draw() & 3 != 0 else boundary()


@machine
def would_print(number: u64, address: u64, size: u64) -> bool:
    """Tell whether a call is a good LOG, which would print garbage among our lines."""
    return number == Hypercall.LOG.value and size <= TRANSFER_LIMIT and address < GENERATOR.memory_size


@machine
def hypercall(number: u64, address: u64, size: u64, answer: u64, answer_size: u64) -> bool:
    """Make a hypercall; True when it was carried out: the result is then in PROBE.rdi. A status that does not exist is a breach."""
    PROBE.clear()
    PROBE.rax = number
    PROBE.rdi = address
    PROBE.rsi = size
    PROBE.rdx = answer
    PROBE.r10 = answer_size
    PROBE.r8 = size
    if not run(u64(VMCALL_ROW)):
        return False
    if PROBE.rax >= STATUS_COUNT:
        report_breach(text("hypercall status"), PROBE.rax)
    return PROBE.rax == Status.OK.value


@machine
def give_way() -> None:
    """Give up the rest of the time slice."""
    _ = hypercall(Hypercall.YIELD.value, u64(0), u64(0), u64(0), u64(0))


@machine
def try_call() -> bool:
    """Make one call; True when the monitor refused it."""
    number = call_number()
    address = harmless_address(boundary())
    size = boundary()
    if would_print(number, address, size):
        number = Hypercall.RANDOM.value
    return not hypercall(number, address, size, harmless_address(boundary()), boundary())


@machine
def version() -> u64:
    """Ask for the version of the interface; 0 when nobody answers."""
    return PROBE.rdi if hypercall(Hypercall.VERSION.value, u64(0), u64(0), u64(0), u64(0)) else u64(0)


@machine
def check_version() -> None:
    """The monitor still answers VERSION rightly."""
    found = version()
    if found != ABI_VERSION:
        report_breach(text("hypercall VERSION"), found)


@machine
def try_hypercalls(memory_size: u64) -> None:
    """Try hypercalls."""
    GENERATOR.state = rdtsc() | 1
    GENERATOR.memory_size = memory_size
    monitored = version() != 0
    refused = u64(0)
    for index in upto(u64(CALLS)):
        refused += u64(try_call())
        if monitored and index & (CHECK_EVERY - 1) == 0:
            check_version()
    report(text("hypercalls"), u64(CALLS), text("refused"), refused)

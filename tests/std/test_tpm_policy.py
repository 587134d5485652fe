"""Commands that belong together, repeated commands, and commands that do not fit, as emitted code (TPM 2.0 Library 1.59, part 3)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Final

import pytest

from dsl.std import tpm, tpm_command, tpm_policy
from dsl.std.tpm import TpmFault
from tests.boot.tpm_device import Crb, Fifo
from tests.std.ported import Ported
from tests.std.tpm_commands import (
    COMMANDS,
    CONTENT,
    ECC_KEY,
    FENCE,
    NAME,
    PASSWORD,
    POLICY,
    RESPONSE,
    TICKET,
    R,
    Run,
    S,
    X,
    Y,
    command,
    run_of,
    session,
    sized,
)
from tests.std.tpm_driver import MILLISECOND, Driver, answer

pytestmark = pytest.mark.t1
KEY = 0x80000001
LOAD, VERIFY, FLUSH, AUTHORIZE = 0x167, 0x177, 0x165, 0x16A
APPROVED = run_of(0x77)
DIGEST = hashlib.sha256(APPROVED).digest()
EXCHANGES = {
    LOAD: (COMMANDS["load"].sent, answer(COMMANDS["load"].good)),
    VERIFY: (command(VERIFY, KEY, sized(DIGEST), b"\0\x18\0\x0b", sized(R), sized(S)), answer(TICKET)),
    FLUSH: (command(FLUSH, KEY), answer()),
    AUTHORIZE: (command(AUTHORIZE, POLICY, sized(APPROVED), b"\0\0", sized(NAME), TICKET), answer()),
}


def approve(
    kind: type[Fifo | Crb], changes: dict[int, bytes], parts: Sequence[bytes] = (X, Y, APPROVED, R, S)
) -> tuple[int, list[bytes]]:
    """Have a policy approved, before a TPM some of whose answers are others: the fault, and the commands."""
    asked = []

    def backend(sent: bytes) -> bytes:
        asked.append(sent)
        code = int.from_bytes(sent[6:10], "big")
        return changes.get(code, EXCHANGES[code][1])

    driver = Driver(tpm_policy.approve, kind(backend))
    given = [POLICY]
    for number, part in enumerate(parts):
        given += [driver.write(0x100 * number, part), len(part)]
    return driver.call(*given), asked


@pytest.mark.parametrize("kind", [Fifo, Crb])
def test_a_policy_is_approved_by_a_key(kind: type[Fifo | Crb]) -> None:
    """The key loaded, the signature over the approved policy's hash checked, the key forgotten, its name and the ticket shown."""
    assert approve(kind, {}) == (0, [sent for sent, _ in EXCHANGES.values()])


@pytest.mark.parametrize("failing", EXCHANGES)
def test_what_follows_a_command_that_failed(failing: int) -> None:
    """Nothing but that the key is forgotten, where there is one; that it is not says nothing of the policy."""
    codes = {LOAD: [LOAD], VERIFY: [LOAD, VERIFY, FLUSH], FLUSH: [*EXCHANGES], AUTHORIZE: [*EXCHANGES]}[failing]
    for given, fault in ((answer(code=0x2DB), RESPONSE + 0x2DB), (answer(bytes(200)), CONTENT)):
        found, asked = approve(Crb, {failing: given})
        assert found == (0 if failing == FLUSH else fault)
        assert asked == [EXCHANGES[code][0] for code in codes]


@pytest.mark.parametrize("size", [0, 1, 2, 8, 34, 127, 128])
def test_tickets_of_all_sizes(size: int) -> None:
    """Whatever the TPM gave is shown to it again, as it was."""
    ticket = run_of(0x99, size)
    found, asked = approve(Crb, {VERIFY: answer(ticket)})
    assert found == 0
    assert asked[-1] == command(AUTHORIZE, POLICY, sized(APPROVED), b"\0\0", sized(NAME), ticket)


class Repeating:
    """A TPM that answers a code so many times, and then as it should; time goes on with each command. Ticks: by number of the command."""

    def __init__(self, codes: list[int], ticks: list[int]) -> None:
        self.codes, self.ticks = iter(codes), iter(ticks)
        self.asked: list[bytes] = []
        self.driver = Driver(tpm_command.flush, Crb(self.backend))

    def backend(self, sent: bytes) -> bytes:
        """One answer."""
        self.asked.append(sent)
        self.driver.now += next(self.ticks, 0)
        return answer(code=next(self.codes, 0))

    def check(self, fault: int, count: int) -> None:
        """It ends so, after so many commands, which were all the same."""
        assert self.driver.results(KEY)[0] == fault
        assert self.asked == [command(FLUSH, KEY)] * count


@pytest.mark.parametrize("code", [0x922, 0x908, 0x90A])
def test_a_command_is_sent_again_where_the_tpm_asks_for_it(code: int) -> None:
    """TPM_RC_RETRY, YIELDED, TESTING (part 2, 6.6.3); for two seconds, to the tick."""
    wait = 2000 * MILLISECOND
    Repeating([], []).check(0, 1)
    Repeating([code] * 20, []).check(0, 21)
    Repeating([code] * 20, [wait, 0, 0, 1]).check(RESPONSE + code, 4)
    Repeating([code] * 3, [wait, 0, 0, 1]).check(0, 4)
    Repeating([code] * 3, [wait + 1]).check(RESPONSE + code, 1)
    Repeating([0x922, 0x908, 0x90A, 0x101], []).check(RESPONSE + 0x101, 4)


@pytest.mark.parametrize("bit", range(12))
def test_no_other_code_asks_for_it(bit: int) -> None:
    """One bit makes another code of it, which is reported at once."""
    for code in {0x922 ^ 1 << bit, 0x908 ^ 1 << bit, 0x90A ^ 1 << bit} - {0x908, 0x90A}:
        Repeating([code], []).check(RESPONSE + code, 1)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_tpm_that_does_not_answer_is_no_answer(name: str) -> None:
    """The fault of the registers is the fault of the command."""
    run = COMMANDS[name].run()
    run.driver.set("command_room", 8)
    assert run.call(answer()) == int(TpmFault.TAKES_TOO_FEW.value)
    assert run.asked == []


def test_an_event_of_any_size_that_fits() -> None:
    """512 bytes are a command's at most; one more stops the machine."""
    for size in (0, 1, 2, 255, 256, 257, 482, 483, 484, 512, 1 << 32):
        data = run_of(3, min(size, 512))
        run = Run(tpm_command.extend_event, "crb", (23, data))
        run.components[-1] = size
        if size > 483:
            assert run.driver.stops(*run.components)
            continue
        assert run.call(answer(bytes(4), tag=0x8002)) == 0
        assert run.asked == [command(0x13C, 23, session(), sized(data), tag=0x8002)]


TAKES: list[tuple[Callable[..., object], int]] = [(tpm.take_u8, 1), (tpm.take_u16, 2), (tpm.take_u32, 4)]


@pytest.mark.parametrize(("function", "size"), TAKES)
def test_numbers_of_an_answer(function: Callable[..., object], size: int) -> None:
    """Big-endian, and the next thing is behind them; where they are not there they are zero, nothing is read, and that is noted."""
    content = run_of(0x81, 1024)
    driver = Driver(function, answer=content)
    for offset in (0, 1, 10, 500, 1024 - size):
        for left in (0, 1, 2, 3, 4, 5, 300, 1 << 40):
            driver.set("offset", offset)
            driver.set("end", offset + left)
            found = driver.results()[0] & (1 << 8 * size) - 1
            if left < size:
                assert (found, driver.changed()) == (0, {"malformed": 1})
            else:
                assert found == int.from_bytes(content[offset : offset + size], "big")
                assert driver.changed() == {"offset": offset + size}


def test_bytes_of_an_answer() -> None:
    """In place; none where they are not all there."""
    driver = Driver(tpm.take_bytes)
    for offset, left in ((0, 0), (0, 10), (10, 54), (24, 1000)):
        driver.set("offset", offset)
        driver.set("end", offset + left)
        for size in (0, 1, 9, 10, 11, 54, 55, 1000, 1001, 1 << 32, (1 << 64) - 1):
            address, length = driver.results(size)[:2]
            if size > left:
                assert (length, driver.changed()) == (0, {"malformed": 1})
            else:
                assert (address, length) == (driver.place + 576 + offset, size)
                assert driver.changed() == ({"offset": offset + size} if size else {})


@pytest.mark.parametrize(
    ("offset", "end", "malformed"),
    [(10, 10, 0), (10, 10, 1), (10, 11, 0), (0, 0, 0), (11, 10, 0), (10, 1 << 32 | 10, 0)],
)
def test_all_of_an_answer_was_read(offset: int, end: int, malformed: int) -> None:
    """Nothing was missing, and nothing is left."""
    driver = Driver(tpm.taken, offset=offset, end=end, malformed=malformed)
    assert driver.results()[0] == (0 if offset == end and not malformed else CONTENT)


def test_time_is_over_after_the_last_tick() -> None:
    """Also where the counter began anywhere: its difference counts."""
    world, now = Ported(tpm.is_over), [0]
    world.replace("rdtsc", lambda _: world.set_time(now[-1]))
    for milliseconds in (0, 1, 30, 750, 8000, 1 << 32):
        for began in (0, 5, (1 << 32) - 1, (1 << 64) - 5):
            for more, is_over in ((0, False), (1, True), (-1, False), (1 << 40, True)):
                if (passed := milliseconds * MILLISECOND + more) < 0:
                    continue
                now.append((began + passed) % (1 << 64))
                assert world.call(began, milliseconds) & 0xFF == is_over


WRONG_ARRAYS: Final[list[tuple[Callable[..., object], tuple[int | bytes | bytearray, ...], bytes]]] = [
    (tpm_command.read_pcr, (32,), b""),
    (tpm_command.read_pcr, (1 << 31,), b""),
    (tpm_command.active_banks, (bytearray(4),), COMMANDS["banks"].good),
    (tpm_command.ask_quote, (KEY, run_of(1, 31), 1), b""),
    (tpm_command.ask_quote, (KEY, run_of(1, 33), 1), b""),
    (tpm_policy.load_key, (run_of(1, 439), Y, bytearray(34)), COMMANDS["load"].good),
    (tpm_policy.load_key, (X, run_of(1, 439), bytearray(34)), COMMANDS["load"].good),
    (tpm_policy.load_key, (X, run_of(1, 441), bytearray(34)), COMMANDS["load"].good),
    (tpm_policy.load_key, (X, Y, bytearray(33)), COMMANDS["load"].good),
    (tpm_policy.load_key, (X, Y, bytearray(35)), COMMANDS["load"].good),
    (tpm_policy.verify_signature, (KEY, DIGEST, R, S, bytearray(len(TICKET) - 1)), TICKET),
    (tpm_policy.verify_signature, (KEY, run_of(1, 425), R, S, bytearray(128)), TICKET),
    (tpm_policy.verify_signature, (KEY, DIGEST, run_of(1, 425), S, bytearray(128)), TICKET),
    (tpm_policy.verify_signature, (KEY, DIGEST, R, run_of(1, 425), bytearray(128)), TICKET),
]


@pytest.mark.parametrize(
    ("function", "given", "content"), WRONG_ARRAYS, ids=lambda value: getattr(value, "__name__", "")
)
def test_what_a_caller_gets_wrong_stops_the_machine(
    function: Callable[..., object], given: tuple[int | bytes | bytearray, ...], content: bytes
) -> None:
    """PCRs that no selection holds, arrays that do not fit: nothing is written beside them."""
    run = Run(function, "crb", given)
    run.answer = answer(content)
    for offset, value in run.places:
        run.driver.write(offset, bytes(value) + FENCE)
    assert run.driver.stops(*run.components)
    for offset, value in run.places:
        assert run.driver.get(offset + len(value), len(FENCE)) == FENCE


def test_the_largest_parts_that_fit() -> None:
    """A command of 512 bytes, with each part's size before it."""
    for x, y in ((438, 32), (32, 438), (0, 470)):
        run = Run(tpm_policy.load_key, "crb", (run_of(1, x), run_of(2, y), bytearray(34)))
        assert run.call(answer(COMMANDS["load"].good)) == 0
        assert run.asked == [
            command(LOAD, b"\0\0\0\x58", ECC_KEY, sized(run_of(1, x)), sized(run_of(2, y)), 0x40000001)
        ]
    for sizes in ((424, 32, 32), (32, 424, 32), (32, 32, 424), (0, 0, 488)):
        digest, r, s = (run_of(number, size) for number, size in enumerate(sizes))
        run = Run(tpm_policy.verify_signature, "crb", (KEY, digest, r, s, bytearray(128)))
        assert run.call(answer(TICKET)) == 0
        assert run.asked == [command(VERIFY, KEY, sized(digest), b"\0\x18\0\x0b", sized(r), sized(s))]


@pytest.mark.parametrize("bit", range(32))
def test_a_session_that_is_no_password_stays_open(bit: int) -> None:
    """Whatever its handle: a policy is asked for both, reading and locking (part 1, 18.6.4)."""
    for function, code, rest in ((tpm_command.lock_index, 0x14F, ()), (tpm_command.read_index, 0x14E, (8,))):
        for handle in (PASSWORD ^ 1 << bit, PASSWORD):
            run = Run(function, "crb", (KEY, handle, *rest))
            run.call(answer(code=1))
            assert run.asked == [command(code, KEY, KEY, session(handle), *([b"\0\x08\0\0"] * len(rest)), tag=0x8002)]


def test_each_part_of_an_approval_has_its_own_size() -> None:
    """The key's coordinates, the policy, the signature's two numbers."""
    parts = [run_of(number, 28 + number) for number in range(5)]
    given, asked = approve(Crb, {}, parts)
    assert given == 0
    assert asked[0] == command(LOAD, b"\0\0\0\x58", ECC_KEY, sized(parts[0]), sized(parts[1]), 0x40000001)
    digest = hashlib.sha256(parts[2]).digest()
    assert asked[1] == command(VERIFY, KEY, sized(digest), b"\0\x18\0\x0b", sized(parts[3]), sized(parts[4]))
    assert asked[3] == command(AUTHORIZE, POLICY, sized(parts[2]), b"\0\0", sized(NAME), TICKET)

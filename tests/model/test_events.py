"""Events into the guest and of the host: re-injection, interrupts and their window, NMI, #DB and #AC, HLT and waking."""

from __future__ import annotations

import pytest

from dsl.hw import vmx
from dsl.lang import offset_of
from tests.model.machine import ModelFailure
from tests.model.processor import TIMER_SHIFT, TSC_HZ
from tests.model.start import machine_for, play
from tests.model.test_absent_memory import PLAIN, READ, violation
from tests.model.vmx_operation import Exit, Guest, Script, VmxMachine
from tests.vmm.images import CODE, TestBox, assemble, monitor
from vmm.cpu import ExitFrame, PhysicalCpu
from vmm.descriptor import StartMode

pytestmark = pytest.mark.t1
REASON = vmx.ExitReason
LONG = TestBox("a", b"\xf4", StartMode.LONG)
VALID, HAS_ERROR = 1 << 31, 1 << 11
EXTERNAL, NMI, EXCEPTION, SOFTWARE, PRIVILEGED, TRAP = 0, 2 << 8, 3 << 8, 4 << 8, 5 << 8, 6 << 8
WINDOW = vmx.PRIMARY_INTERRUPT_WINDOW_EXITING
IF, TF = 1 << 9, 1 << 8
OPEN, CLOSED = {vmx.GUEST_RFLAGS: IF | 2}, {vmx.GUEST_RFLAGS: 2}

VECTORINGS = [
    # information, error code, instruction length
    (VALID | EXTERNAL | 0x20, 0, 0),
    (VALID | EXTERNAL | 0xFF, 0, 0),
    (VALID | NMI | 2, 0, 0),
    *((VALID | EXCEPTION | HAS_ERROR | vector, 0x18, 0) for vector in (10, 11, 12, 13, 14)),
    (VALID | EXCEPTION | HAS_ERROR | 8, 0, 0),
    (VALID | EXCEPTION | HAS_ERROR | 17, 0, 0),
    *((VALID | EXCEPTION | vector, 0, 0) for vector in (0, 1, 5, 6, 7, 16, 19)),
    (VALID | SOFTWARE | 0x80, 0, 2),
    (VALID | SOFTWARE | 0x80, 0, 15),
    (VALID | PRIVILEGED | 1, 0, 1),
    (VALID | TRAP | 3, 0, 1),
    (VALID | TRAP | 4, 0, 1),
]


@pytest.mark.parametrize(("information", "error", "length"), VECTORINGS, ids=[f"{row[0]:#x}" for row in VECTORINGS])
def test_an_interrupted_delivery_is_repeated(information: int, error: int, length: int) -> None:
    """What was being delivered when an exit came is delivered by the next entry: same event, error code and length; then no more."""

    def script(guest: Guest) -> Script:
        for reason in (REASON.PREEMPTION_TIMER, REASON.EXTERNAL_INTERRUPT, REASON.INTERRUPT_WINDOW):
            rip = guest.rip
            noise = (
                1 << 12 if reason is REASON.PREEMPTION_TIMER else 0
            )  # NMI unblocking: undefined here, must not get through
            yield Exit(
                reason,
                length=length,
                fields=OPEN,
                vectoring=information | noise,
                vectoring_error=error,
                interruption=VALID | 0x3F,
            )
            assert guest.event == information
            assert guest.rip == rip
            if information & HAS_ERROR:
                assert guest.event_error == error
            if length:
                assert guest.event_length == length
            yield Exit(REASON.PREEMPTION_TIMER, fields=OPEN)
            assert guest.event == 0

    play(script, LONG)


def test_a_new_fault_is_not_lost_beside_an_interrupted_delivery() -> None:
    """An event that cannot be delivered for want of memory ends the box: the manual's double fault would not find its stack either."""

    def script(guest: Guest) -> Script:
        yield Exit(
            REASON.EPT_VIOLATION,
            qualification=0x182,
            vectoring=VALID | EXCEPTION | HAS_ERROR | 14,
            guest_physical=0x4000_0000,
        )
        raise AssertionError("it ran again")

    play(script, LONG, ending="no memory to deliver an event")


# --- #DB and #AC


def test_debug_exceptions_go_back_to_the_guest() -> None:
    """#DB: DR6 gets the causes, DR7.GD alone is cleared, and it is delivered."""

    def script(guest: Guest) -> Script:
        guest.machine["dr6"] = 0xFFFF_0FF3
        fields = {vmx.GUEST_DR7: 0xFFFF_FFFF}
        yield Exit(REASON.EXCEPTION_OR_NMI, qualification=0x4004, interruption=VALID | EXCEPTION | 1, fields=fields)
        assert guest.event == VALID | EXCEPTION | 1
        assert guest.machine["dr6"] == 0xFFFF_4FF4
        assert guest[vmx.GUEST_DR7] == 0xFFFF_DFFF

    play(script, LONG)


@pytest.mark.parametrize("shadow", [1, 2])
def test_a_debug_exception_in_an_interrupt_shadow(shadow: int) -> None:
    """#DB with TF set while blocking by STI or MOV SS (INT1 after MOV SS, which any user program can do) breaks no entry check."""

    def script(guest: Guest) -> Script:
        for flags, pending in ((IF | TF | 2, 1 << 14), (IF | 2, 0)):
            fields = {
                vmx.GUEST_INTERRUPTIBILITY: shadow,
                vmx.GUEST_RFLAGS: flags,
                vmx.GUEST_PENDING_DEBUG_EXCEPTIONS: 0,
            }
            yield Exit(REASON.EXCEPTION_OR_NMI, length=1, interruption=VALID | PRIVILEGED | 1, fields=fields)
            assert guest.event == VALID | PRIVILEGED | 1
            assert guest[vmx.GUEST_PENDING_DEBUG_EXCEPTIONS] == pending

    play(script, LONG)


def test_alignment_checks_go_back_to_the_guest() -> None:
    """#AC with its error code; a thousand of them running: nothing else happens, and each entry has its deadline."""

    def script(guest: Guest) -> Script:
        for _ in range(1000):
            yield Exit(REASON.EXCEPTION_OR_NMI, interruption=VALID | EXCEPTION | HAS_ERROR | 17)
            assert (guest.event, guest.event_error) == (VALID | EXCEPTION | HAS_ERROR | 17, 0)

    play(script, LONG)


def test_an_interrupt_waits_for_the_exception_that_came_first() -> None:
    """#DB during the delivery of an external interrupt: the exception goes first, the acknowledged interrupt when the guest can take it."""

    def script(guest: Guest) -> Script:
        yield Exit(
            REASON.EXCEPTION_OR_NMI, interruption=VALID | EXCEPTION | 1, vectoring=VALID | EXTERNAL | 0x31, fields=OPEN
        )
        assert guest.event == VALID | EXCEPTION | 1
        assert guest[vmx.PRIMARY_CONTROLS] & WINDOW
        yield Exit(REASON.PREEMPTION_TIMER, fields=CLOSED)
        assert guest.event == 0
        assert guest[vmx.PRIMARY_CONTROLS] & WINDOW
        for vectoring in (
            0,
            VALID | EXCEPTION | 3,
        ):  # others come meanwhile, with or without something to be delivered again
            yield Exit(REASON.EXCEPTION_OR_NMI, interruption=VALID | EXCEPTION | 1, vectoring=vectoring, fields=CLOSED)
            assert guest.event == VALID | EXCEPTION | 1
        yield Exit(REASON.INTERRUPT_WINDOW, fields=OPEN)
        assert guest.event == VALID | EXTERNAL | 0x31
        yield Exit(REASON.PREEMPTION_TIMER, fields=OPEN)
        assert guest.event == 0
        assert not guest[vmx.PRIMARY_CONTROLS] & WINDOW

    play(script, LONG)


def test_an_interrupt_that_waits_is_not_being_delivered() -> None:
    """An access to absent memory while one waits is carried out: it was none that the delivery made."""

    def script(guest: Guest) -> Script:
        yield Exit(
            REASON.EXCEPTION_OR_NMI,
            interruption=VALID | EXCEPTION | 1,
            vectoring=VALID | EXTERNAL | 0x31,
            fields=CLOSED,
        )
        code = assemble("mov eax, [rsi]", 64)
        yield violation(guest, code, 64, PLAIN | READ)
        assert (guest.event, guest.rip, guest["rax"]) == (0, CODE + len(code), 0xFFFF_FFFF)

    play(script, LONG)


def test_an_exception_that_was_not_asked_for_ends_the_box() -> None:
    """The exception bitmap has #DB, #AC and #MC; any other is an unknown exit."""

    def script(guest: Guest) -> Script:
        assert guest[vmx.EXCEPTION_BITMAP] == 1 << 1 | 1 << 17 | 1 << 18
        yield Exit(REASON.EXCEPTION_OR_NMI, interruption=VALID | TRAP | 3)

    play(script, LONG, ending="unknown exit (exit reason 0,")


def test_a_machine_check_stops_the_machine() -> None:
    """#MC while a guest ran is said, and nothing runs any more."""

    def script(guest: Guest) -> Script:
        yield Exit(REASON.EXCEPTION_OR_NMI, interruption=VALID | EXCEPTION | 18)

    machine = play(script, LONG, ending="machine check")
    assert machine.serial_text().rstrip().endswith("terrane| stopped: machine check while a box ran")


# --- Interrupts through the box's PIC and PIT


def out(port: int, value: int) -> Exit:
    """OUT of a byte, in some microseconds."""
    return Exit(REASON.IO_INSTRUCTION, port << 16, 2, registers={"rax": value})


PROGRAM_PIC = [(0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0x21, 0xFE)]
PROGRAM_PIT = [(0x43, 0x34), (0x40, 0x9C), (0x40, 0x2E)]  # mode 2, 11932: 10 ms
TEN_MS = 10_050_000


def test_a_timer_interrupt_and_its_window() -> None:
    """The PIT's interrupt waits for IF, for the end of an interrupt shadow, is delivered once, and asks for an exit in the meantime."""

    def script(guest: Guest) -> Script:
        for port, value in (*PROGRAM_PIC, *PROGRAM_PIT):
            yield out(port, value)
        assert not guest[vmx.PRIMARY_CONTROLS] & WINDOW
        yield Exit(REASON.PREEMPTION_TIMER, fields=CLOSED, ticks=TEN_MS)
        assert guest.event == 0
        assert guest[vmx.PRIMARY_CONTROLS] & WINDOW
        yield Exit(REASON.PREEMPTION_TIMER, fields={vmx.GUEST_RFLAGS: IF | 2, vmx.GUEST_INTERRUPTIBILITY: 1})
        assert guest.event == 0
        assert guest[vmx.PRIMARY_CONTROLS] & WINDOW
        yield Exit(REASON.INTERRUPT_WINDOW, fields={vmx.GUEST_INTERRUPTIBILITY: 0})
        assert guest.event == VALID | EXTERNAL | 0x20
        assert not guest[vmx.PRIMARY_CONTROLS] & WINDOW
        yield Exit(REASON.PREEMPTION_TIMER, fields=OPEN, ticks=TEN_MS)  # in service: no second one
        assert guest.event == 0
        yield out(0x20, 0x20)
        assert guest.event == VALID | EXTERNAL | 0x20

    play(script, LONG)


def test_an_interrupt_waits_for_another_event() -> None:
    """While an interrupted delivery is repeated, an interrupt of the PIC is not injected in its place, and not lost."""

    def script(guest: Guest) -> Script:
        for port, value in (*PROGRAM_PIC, *PROGRAM_PIT):
            yield out(port, value)
        page_fault = VALID | EXCEPTION | HAS_ERROR | 14
        yield Exit(REASON.PREEMPTION_TIMER, fields=OPEN, ticks=TEN_MS, vectoring=page_fault, vectoring_error=2)
        assert (guest.event, guest.event_error) == (page_fault, 2)
        assert guest[vmx.PRIMARY_CONTROLS] & WINDOW
        yield Exit(REASON.INTERRUPT_WINDOW, fields=OPEN)
        assert guest.event == VALID | EXTERNAL | 0x20

    play(script, LONG)


def test_hlt_waits_for_the_interrupt() -> None:
    """A halted box is not entered until its PIT fires; the host sleeps meanwhile, woken by the local APIC's timer."""
    halts: list[int] = []

    def script(guest: Guest) -> Script:
        for port, value in (*PROGRAM_PIC, *PROGRAM_PIT):
            yield out(port, value)
        for _ in range(5):
            rip, before, slept = guest.rip, guest.machine.clock.ticks, guest.machine.special_count.get("hlt", 0)
            yield Exit(REASON.HLT, length=1, fields=OPEN | {vmx.GUEST_INTERRUPTIBILITY: 1})
            assert guest.rip == rip + 1
            assert guest.event == VALID | EXTERNAL | 0x20
            assert guest[vmx.GUEST_INTERRUPTIBILITY] == 0
            assert guest.machine.clock.ticks - before < 10_500_000
            halts.append(guest.machine.special_count["hlt"] - slept)
            yield out(0x20, 0x20)

    machine = play(script, LONG)
    assert all(count > 0 for count in halts)
    assert machine.apic.ended_interrupts >= len(halts)


# --- Interrupts and NMIs of the host


def cpu_word(machine: VmxMachine, field: str) -> int:
    """A word of the CPU's own state."""
    return machine.read_word(monitor().symbols["vmm.cpu.BOOT_CPU"][0] + int(offset_of(PhysicalCpu, field)))


def nmi_pending(machine: VmxMachine) -> int:
    """The flag that is looked at before each entry."""
    frame = monitor().symbols["vmm.cpu.BOOT_CPU"][0] + int(offset_of(PhysicalCpu, "exit_frame"))
    return machine.read_word(frame + int(offset_of(ExitFrame, "nmi_pending")))


@pytest.mark.parametrize(
    ("vector", "ended"), [(0x30, 1), (0x31, 1), (0x3F, 0), (0x27, 0), (0x2F, 0), (0x35, 1), (0x40, 1), (0xFF, 1)]
)
def test_a_host_interrupt_reaches_its_owner(vector: int, ended: int) -> None:
    """An acknowledged vector is ended once, but for spurious ones; one beyond the table does no harm; the guest sees none."""

    def script(guest: Guest) -> Script:
        yield Exit(REASON.EXTERNAL_INTERRUPT, interruption=VALID | vector, fields=OPEN)
        assert guest.event == 0
        assert guest.machine.apic.ended_interrupts == ended
        assert cpu_word(guest.machine, "unexpected_interrupts") == (1 if vector in (0x31, 0x35, 0x40, 0xFF) else 0)

    play(script, LONG)


def test_an_nmi_exit_runs_the_handler() -> None:
    """An NMI that ended in an exit is taken by the host, whose IRET unblocks NMIs; the guest gets none; the flag is down at the entry."""

    def script(guest: Guest) -> Script:
        for count in (1, 2, 3):
            yield Exit(REASON.EXCEPTION_OR_NMI, interruption=VALID | NMI | 2)
            assert guest.event == 0
            assert cpu_word(guest.machine, "nmi_count") == count
            assert nmi_pending(guest.machine) == 0

    play(script, LONG)


STUB = "vmm.vmx.entry.resume_guest"
LAUNCH = "vmm.vmx.entry.launch_guest"


@pytest.mark.parametrize("symbol", [STUB, LAUNCH])
@pytest.mark.parametrize("offset", [0, 6, 8])
def test_an_nmi_just_before_the_entry_is_seen(symbol: str, offset: int) -> None:
    """An NMI at any instruction of the stub, the entry itself included: the entry is not made before the run loop has looked at it."""
    address = monitor().symbols[symbol][0] + offset
    seen: list[tuple[int, int]] = []

    def script(guest: Guest) -> Script:
        seen.append((cpu_word(guest.machine, "nmi_count"), nmi_pending(guest.machine)))
        yield Exit(REASON.PREEMPTION_TIMER, registers={"r15": 0x1234_5678, "rdi": 5})
        seen.append((cpu_word(guest.machine, "nmi_count"), nmi_pending(guest.machine)))
        assert (guest["r15"], guest["rdi"]) == (0x1234_5678, 5)

    machine = machine_for([LONG], [script])
    machine.interrupt_at(address, vector=2)
    machine.run()
    assert not machine.exceptions
    assert seen == ([(0, 0), (1, 0)] if symbol == STUB else [(1, 0), (1, 0)])


def test_an_nmi_before_an_entry_keeps_its_event() -> None:
    """What the entry was to deliver is delivered by the next, though another interrupt waits, and the PIC is done with the first."""

    def script(guest: Guest) -> Script:
        automatic_end = ((0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 3), (0x21, 0xFC))
        for port, value in (*automatic_end, *PROGRAM_PIT, (0x64, 0xD2), (0x60, 0x55)):
            yield out(port, value)
        yield Exit(REASON.PREEMPTION_TIMER, fields=CLOSED, ticks=TEN_MS)
        assert guest.event == 0
        guest.machine.interrupt_at(monitor().symbols[STUB][0] + 6, vector=2)
        for vector in (0x20, 0x21):
            yield Exit(REASON.PREEMPTION_TIMER, fields=OPEN)
            assert guest.event == VALID | EXTERNAL | vector
            assert cpu_word(guest.machine, "nmi_count") == 1

    play(script, LONG)


def test_an_nmi_after_a_hot_exit_keeps_the_guest_s_registers() -> None:
    """The stub that a hot exit goes back through is left for the NMI: what CPUID answered, RBX too, is still there at the entry."""

    def script(guest: Guest) -> Script:
        yield Exit(REASON.PREEMPTION_TIMER)
        guest.machine.interrupt_at(monitor().symbols[STUB][0] + 6, vector=2)
        values = {"rbx": 1, "rbp": 2, "rsi": 3, "rdi": 4, "r8": 5, "r11": 6, "r12": 7, "r15": 8}
        yield Exit(REASON.CPUID, length=2, registers=values | {"rax": 0x4000_0000})
        assert cpu_word(guest.machine, "nmi_count") == 1
        assert guest["rbx"].to_bytes(4, "little") == b"Terr"
        assert {name: guest[name] for name in values if name != "rbx"} == {
            name: value for name, value in values.items() if name != "rbx"
        }

    play(script, LONG)


def test_an_nmi_anywhere_else_is_counted() -> None:
    """NMIs in the middle of handlers return to where they came: the run is the same, but for the count."""

    def script(guest: Guest) -> Script:
        for symbol in (
            "vmm.scheduler.run_once",
            "vmm.exits.dispatch.handle_none",
            "vmm.vmx.hot.handle_hot_exit",
            "vmm.vmx.entry.guest_exit",
        ):
            if symbol in monitor().symbols:
                guest.machine.interrupt_at(monitor().symbols[symbol][0], vector=2)
        yield Exit(REASON.CPUID, length=2, registers={"rax": 0x4000_0000})
        assert guest["rbx"].to_bytes(4, "little") == b"Terr"
        yield Exit(REASON.INVD, length=2, registers={"rbx": 77})
        assert guest["rbx"] == 77
        assert cpu_word(guest.machine, "nmi_count") >= 2
        assert nmi_pending(guest.machine) == 0

    play(script, LONG)


# --- The preemption timer


def test_a_guest_is_never_entered_without_a_deadline() -> None:
    """The model refuses such an entry: shown by clearing the timer's control, and by a value of more than a slice, under a guest."""

    def without_control(guest: Guest) -> Script:
        guest.vmcs[vmx.PIN_BASED_CONTROLS] &= ~vmx.PIN_PREEMPTION_TIMER
        guest.vmcs[vmx.EXIT_CONTROLS] &= ~vmx.EXIT_SAVE_PREEMPTION_TIMER
        yield Exit(REASON.PREEMPTION_TIMER)

    with pytest.raises(ModelFailure, match="without the preemption timer"):
        play(without_control, LONG)

    def with_a_long_one(guest: Guest) -> Script:
        yield Exit(REASON.PREEMPTION_TIMER)
        guest.machine.clock.ticks -= 10_000_000  # time that runs backwards makes the slice longer
        yield Exit(REASON.INVD, length=2)

    with pytest.raises(ModelFailure, match="longer than a slice"):
        play(with_a_long_one, LONG)


def test_the_deadline_is_the_slice_or_the_device() -> None:
    """The timer is set to the time that is left: at most a slice, and no later than the PIT's next interrupt."""

    def script(guest: Guest) -> Script:
        left = guest[vmx.PREEMPTION_TIMER_VALUE] << 5
        assert 0 < left <= 5_000_000
        for port, value in (*PROGRAM_PIC, (0x43, 0x34), (0x40, 0xA9), (0x40, 0x04)):  # 1193: 1 ms
            yield out(port, value)
        for _ in range(20):
            assert guest[vmx.PREEMPTION_TIMER_VALUE] << 5 <= 1_010_000
            yield Exit(REASON.PREEMPTION_TIMER, fields=OPEN, ticks=400_000)
            if guest.event:
                yield out(0x20, 0x20)

    play(script, LONG)


def test_an_exit_storm_ends_at_the_deadline() -> None:
    """A guest that does nothing but CPUID is left when its slice is over: the other box gets its turn."""
    turns: list[str] = []

    def storm(guest: Guest) -> Script:
        for _ in range(400):
            turns.append("storm")
            yield Exit(REASON.CPUID, length=2, registers={"rax": 0}, ticks=100_000)

    def other(guest: Guest) -> Script:
        for _ in range(4):
            turns.append("other")
            yield Exit(REASON.PREEMPTION_TIMER, ticks=5_000_000)

    machine = machine_for([TestBox("storm", b"\xf4"), TestBox("other", b"\xf4\xf4")], [storm, other])
    machine.run()
    longest = max(len(part) for part in "".join("s" if turn == "storm" else " " for turn in turns).split()[:3])
    assert longest <= 52, longest
    assert turns.count("other") == 4


def test_a_box_runs_on_when_it_has_run_for_weeks() -> None:
    """However long ago a box started, its devices' deadlines cost it no more than they did: none is found to be past and not yet due."""
    taken: list[int] = []

    def script(guest: Guest) -> Script:
        clock = guest.machine.clock
        for port, value in (*PROGRAM_PIC, *PROGRAM_PIT):
            yield out(port, value)
        for days in (0, 30):
            clock.pass_ticks(days * 86_400 * TSC_HZ)
            for _ in range(12):
                ends = clock.ticks + (guest[vmx.PREEMPTION_TIMER_VALUE] << TIMER_SHIFT)
                yield Exit(REASON.PREEMPTION_TIMER, fields=OPEN, ticks=ends - clock.ticks)
                taken.append(clock.ticks - ends)
                yield out(0x20, 0x20)

    machine = machine_for([LONG], [script])
    machine.time_limit = 2**62
    machine.run()
    assert len(taken) == 24
    assert max(taken) < TSC_HZ // 10_000, taken

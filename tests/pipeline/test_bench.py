"""What `bench` counts from: the debugger's words, the lines of source, and how a row holds a number against its anchor."""

from __future__ import annotations

import socket
import struct
import threading
from pathlib import Path

import pytest

from pipeline import bench, bench_boot, bench_exits, bench_handover
from pipeline.bench_boot import Spent, Stop
from pipeline.bench_handover import Debugger
from pipeline.bench_rows import Row
from pipeline.emulator import EmulatorError

SAID = """\
Next at t=0
(0) [0x0000fffffff0] f000:fff0 (unk. ctxt): jmpf 0xf000:e05b          ; ea5be000f0
(0) Breakpoint 3, 0xffffffff80006628 in ?? ()
Next at t=788180142
(0) [0x00000fc06628] 0008:ffffffff80006628 (unk. ctxt): vmlaunch                  ; 0f01c2
0x3f861 259937
(0) Breakpoint 1, 0xffffffff8000cb50 in ?? ()
Next at t=788180195
(0) [0x00000fc0cb50] 0008:ffffffff8000cb50 (unk. ctxt): push rdi                  ; 57
Next at t=788180196
(0) [0x00000fc0cb51] 0008:ffffffff8000cb51 (unk. ctxt): rep stosq qword ptr es:[rdi], rax ; f348ab
"""
ENTRY, EXIT, WAIT, AWAKE = 0x10, 0x20, 0x30, 0x31


def test_the_stops_of_the_debugger_are_read() -> None:
    """Time, address and instruction of each stop but the one at reset; what `calc` said, where it was asked."""
    assert list(bench_boot.stops(SAID)) == [
        Stop(788180142, 0xFFFF_FFFF_8000_6628, "vmlaunch", 0x3F861),
        Stop(788180195, 0xFFFF_FFFF_8000_CB50, "push rdi", 0),
        Stop(788180196, 0xFFFF_FFFF_8000_CB51, "rep stosq qword ptr es:[rdi], rax", 0),
    ]


@pytest.mark.parametrize(
    ("place", "instruction", "expected"),
    [
        ("boot.main.main", "rep stosb byte ptr es:[rdi], al", "zeroing"),
        ("boot.main.main", "rep movsb byte ptr es:[rdi], byte ptr ds:[rsi]", "copying"),
        ("dsl.std.sha256.compress", "add eax, 1", "hashing"),
        ("dsl.std.field25519.field_square", "mulx rax, rdx, rcx", "signatures"),
        ("dsl.std.serial.serial_send", "in al, dx", "waiting"),
        ("boot.acpi.search", "inc rax", "other"),
    ],
)
def test_an_instruction_is_spent_on(place: str, instruction: str, expected: str) -> None:
    """String instructions by themselves, all others by their function."""
    assert bench_boot.category(place, instruction) == expected


def written(ticks: int, character: str) -> Stop:
    """An exit for OUT to the serial port."""
    return Stop(ticks, EXIT, "push rdi", bench_boot.DATA_PORT << 8 | ord(character))


def test_a_boot_is_added_up_until_its_prompt() -> None:
    """From entry to exit is the guest's, from exit to entry the monitor's but where it waits; nothing counts after the prompt."""
    found = [
        Stop(100, ENTRY, "vmlaunch", 0),
        written(150, "o"),
        Stop(157, WAIT, "sti", 0),
        Stop(1157, AWAKE, "cli", 0),
        Stop(1160, ENTRY, "vmresume", 0),
        written(1200, "k"),
        Stop(1300, ENTRY, "vmresume", 0),
    ]
    assert bench_boot.account(iter(found), EXIT, {WAIT: AWAKE}, "ok") == Spent(exits=2, guest=90, monitor=10, idle=1000)
    with pytest.raises(EmulatorError, match="expected 'no' among the bytes"):
        bench_boot.account(iter(found), EXIT, {WAIT: AWAKE}, "no")


def test_the_meter_has_a_line_for_every_row() -> None:
    """The rows of `bench exits` and the rows of the meter's table are the same, besides `nothing`; names hold what is looked for."""
    from guests.meter.main import SNIPPETS

    assert [row[0] for row in SNIPPETS] == [bench_exits.NOTHING, *bench_exits.EXITS]
    names = [exit_.name for exit_ in bench_exits.EXITS.values()]
    assert any("cpuid" in name for name in names)
    assert any("vmcall" in name for name in names)


def test_lines_of_code_are_counted(tmp_path: Path) -> None:
    """Blank lines, comments and docstrings do not count; each line of a statement does."""
    path = tmp_path / "a.py"
    path.write_text(
        '"""Doc."""\n\nX = (\n    1,  # one\n)\n# comment\n\n\ndef f():\n    """Doc\n    string."""\n    return X\n'
    )
    assert bench.code_lines(path) == 5


def test_a_row_has_its_ratio() -> None:
    """Ours over the anchor; none without one."""
    assert Row("a", 30, 120, "x", "so").values() == {
        "name": "a",
        "ours": 30,
        "anchor": 120,
        "unit": "x",
        "how": "so",
        "ratio": 0.25,
    }
    assert Row("a", 30, None, "x", "so").values()["ratio"] is None


def test_the_debugger_reads_the_counter_and_leaves_no_trace() -> None:
    """An RDTSC where the machine stands, one step, and memory and registers as they were; an error is one."""
    registers = bytearray(range(24 * 8))
    struct.pack_into("<Q", registers, 8 * bench_handover.RIP, 0x7C00)
    after = bytearray(registers)
    struct.pack_into("<Q", after, 8 * bench_handover.RAX, 0x89ABCDEF)
    struct.pack_into("<Q", after, 8 * bench_handover.RDX, 0x1234567)
    exchange = [
        ("g", registers.hex()), ("m7c00,2", "cccc"), ("M7c00,2:0f31", "OK"), ("s", "T05"), ("g", after.hex()),
        ("M7c00,2:cccc", "OK"), (f"G{registers.hex()}", "OK"), ("Z1,10,1", "E22"),
    ]  # fmt: skip
    ours, theirs = socket.socketpair()
    asked: list[str] = []

    def stub() -> None:
        for _, answer in exchange:
            data = b""
            while b"#" not in data[:-2]:
                data += theirs.recv(4096)
            asked.append(data.partition(b"$")[2].partition(b"#")[0].decode())
            theirs.sendall(b"+$" + answer.encode() + b"#00")

    thread = threading.Thread(target=stub, daemon=True)
    thread.start()
    with Debugger(ours) as debugger:
        assert debugger.ticks() == 0x123456789ABCDEF
        with pytest.raises(EmulatorError, match="Z1,10,1: expected an answer, found the error E22"):
            debugger.ask("Z1,10,1")
    thread.join(10)
    theirs.close()
    assert asked == [question for question, _ in exchange]


def test_an_image_is_made_to_spin(tmp_path: Path) -> None:
    """Its first two bytes alone; code that is not there, or twice, is an error."""
    path, code = tmp_path / "a.img", bytes(range(64))
    path.write_bytes(b"x" * 100 + code + b"y" * 100)
    spinning = bench_handover.spinning_image(path, code).read_bytes()
    assert spinning == b"x" * 100 + b"\xeb\xfe" + code[2:] + b"y" * 100
    for wrong in (b"x", b"z"):
        with pytest.raises(
            EmulatorError, match=r"expected the application's first bytes once in the image, found (200|100|0)"
        ):
            bench_handover.spinning_image(path, wrong)

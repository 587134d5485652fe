"""gdb at QEMU's gdbstub stops at a line of the loader's Python source, steps, shows a register and the callers."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.boot.images import disk_of, loader, partition_of, usual_parts

ROOT = Path(__file__).resolve().parents[2]
QEMU, GDB = shutil.which("qemu-system-x86_64"), shutil.which("gdb")
pytestmark = [
    pytest.mark.t3,
    pytest.mark.skipif(QEMU is None or GDB is None, reason="qemu-system-x86_64 and gdb are not both installed"),
]
MACHINE = ("-accel", "tcg", "-cpu", "max", "-m", "64", "-display", "none", "-nodefaults", "-vga", "std", "-no-reboot")


def line_of(file: str, text: str) -> int:
    """The only line of a source that holds the text."""
    (number,) = [n for n, line in enumerate((ROOT / file).read_text().splitlines(), 1) if text in line]
    return number


def session(folder: Path, commands: list[str]) -> str:
    """Boot the loader under QEMU, halted at reset; what gdb prints while it obeys the commands."""
    assert QEMU is not None
    assert GDB is not None
    disk, symbols, socket = folder / "disk.img", folder / "loader.elf", folder / "gdb"
    disk.write_bytes(disk_of(partition_of(usual_parts())).ljust(8 << 20, b"\0"))
    symbols.write_bytes(loader().elf())
    script = ["set pagination off", "set confirm off", f"target remote {socket}", *commands, "kill"]
    (folder / "script").write_text("\n".join(script) + "\n")
    machine = subprocess.Popen(
        [QEMU, *MACHINE, "-drive", f"file={disk},format=raw,if=ide", "-S",
         "-chardev", f"socket,path={socket},server=on,wait=off,id=gdb", "-gdb", "chardev:gdb"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        end = time.monotonic() + 20
        while not socket.exists() and time.monotonic() < end and machine.poll() is None:
            time.sleep(0.02)
        done = subprocess.run(
            [GDB, "-batch", "-nx", "-x", folder / "script", symbols],
            cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    finally:
        machine.kill()
        machine.wait()
    return done.stdout + done.stderr


def test_break_step_print_and_backtrace(tmp_path: Path) -> None:
    erase = line_of("boot/entries.py", "erase(staged_bytes(staging, entry))")
    compress = line_of("dsl/std/sha512.py", "def compress(state")
    said = session(
        tmp_path,
        [
            f"break boot/entries.py:{erase}",
            "continue",
            "print/x $rip",
            "backtrace",
            "step",
            "info line *$rip",
            "break dsl.std.sha512.compress",
            "continue",
            "print/x $rsp",
            "backtrace",
            "finish",
            "info line *$rip",
        ],
    )
    assert f"Breakpoint 1, boot.main.main () at boot/entries.py:{erase}" in said, said
    assert f"{erase}\t            erase(staged_bytes(staging, entry))" in said  # gdb shows the Python
    stopped = re.search(r"\$1 = (0x[0-9a-f]+)", said)
    assert stopped is not None
    start, size, _ = loader().symbols["boot.main.main"]
    assert start <= int(stopped[1], 16) < start + size
    callers = said[said.index("#0") :]
    assert re.search(r"#1 .* boot\.main\.start \(\) at boot/main\.py:\d+\n", callers), said
    assert "#2" not in callers[: callers.index("Breakpoint 2")]  # start sets the stack: nobody called it
    stepped = re.search(r'Line (\d+) of "(\w[\w/]*\.py)"', said)
    assert stepped is not None, said
    assert (stepped[2], int(stepped[1])) != ("boot/entries.py", erase)
    assert f"Breakpoint 2, dsl.std.sha512.compress () at dsl/std/sha512.py:{compress}" in said
    deep = said[said.index("Breakpoint 2, ") :]
    names = re.findall(r"#\d+ +(?:0x[0-9a-f]+ in )?([\w.]+) \(\)", deep)
    assert names[0] == "dsl.std.sha512.compress"
    callers_of_compress = names[1 : names.index("boot.main.start") + 1]
    assert len(callers_of_compress) >= 3, said  # through frames that hold saved registers
    assert callers_of_compress[-2:] == ["boot.main.main", "boot.main.start"]
    assert f"<{callers_of_compress[0]}+" in deep  # finish came back to the caller

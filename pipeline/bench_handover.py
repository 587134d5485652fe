"""What starting costs on both firmwares: from firmware's hand-over to the monitor's first instruction, in QEMU, which counts instructions.

Under `-icount shift=0` the TSC counts what was executed. It is read by an RDTSC that the debugger puts where the machine has stopped, runs,
and takes away again; each stop lets the clock run on for some microseconds of the host's, thousands of ticks, so that the last digits
differ from run to run (0.1 % from a BIOS, 1 % from UEFI, whose disk driver waits by the clock). A BIOS hands over at 7C00h; where UEFI
firmware will load the application is not known: it spins on its first instruction until it is found there.
"""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path
from typing import Any, Self

from pipeline import assemble, disk, paths
from pipeline.bench_boot import symbol
from pipeline.bench_rows import Row, build_image
from pipeline.emulator import EmulatorError
from pipeline.qemu import BIOS, UEFI, Qemu, QemuMachine

BOX, MEMORY = "meter", 256  # MiB
SECONDS = 600.0
CONNECT_SECONDS = 20.0
POLL_SECONDS = 1.0  # of the search for where UEFI firmware put the application
COUNTING = ("-icount", "shift=0,sleep=on", "-rtc", "base=2026-01-01,clock=vm", "-S")
BOOT_SECTOR = 0x7C00
SPIN = b"\xeb\xfe"
RDTSC = b"\x0f\x31"
RAX, RDX, RIP = 0, 3, 16  # places of 8 bytes in what QEMU says of all registers


class Debugger:
    """QEMU's debugger stub: the remote protocol of gdb, as much of it as is needed here."""

    def __init__(self, line: socket.socket) -> None:
        """`line`: to the stub, which halts the machine."""
        self.line = line
        self.line.settimeout(SECONDS)
        self.pending = b""

    def __enter__(self) -> Self:
        """It is connected."""
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up."""
        self.line.close()

    def send(self, words: str) -> None:
        """Send one packet."""
        data = words.encode()
        self.line.sendall(b"$" + data + b"#%02x" % (sum(data) & 0xFF))

    def receive(self) -> str:
        """The next packet. Raises EmulatorError where QEMU hangs up or says nothing."""
        while b"#" not in self.pending[:-2]:
            try:
                piece = self.line.recv(1 << 16)
            except TimeoutError:
                piece = b""
            if not piece:
                raise EmulatorError(f"QEMU's debugger: expected an answer within {SECONDS:.0f} s, found none")
            self.pending += piece
        packet, self.pending = self.pending.split(b"#", 1)
        self.pending = self.pending[2:]
        self.line.sendall(b"+")
        return packet.partition(b"$")[2].decode("ascii", "replace")

    def ask(self, words: str) -> str:
        """What the stub answers. Raises EmulatorError for an error."""
        self.send(words)
        answer = self.receive()
        if answer.startswith("E") and len(answer) == 3:
            raise EmulatorError(f"QEMU's debugger: {words}: expected an answer, found the error {answer}")
        return answer

    def registers(self) -> bytearray:
        """All registers, in the stub's order."""
        return bytearray.fromhex(self.ask("g").replace("x", "0"))

    def read(self, address: int, size: int) -> bytes:
        """Bytes of memory; nothing where none is mapped."""
        self.send(f"m{address:x},{size:x}")
        answer = self.receive()
        return b"" if answer.startswith("E") else bytes.fromhex(answer)

    def write(self, address: int, data: bytes) -> None:
        """Change memory."""
        self.ask(f"M{address:x},{len(data):x}:{data.hex()}")

    def run_to(self, address: int) -> None:
        """Go on to an address."""
        self.ask(f"Z1,{address:x},1")
        self.ask("c")
        self.ask(f"z1,{address:x},1")
        found = number(self.registers(), RIP)
        if found != address:
            raise EmulatorError(f"QEMU's debugger: expected a stop at {address:#x}, found one at {found:#x}")

    def ticks(self) -> int:
        """The TSC, by an instruction that leaves no trace but its own tick."""
        registers = self.registers()
        place = number(registers, RIP)
        before = self.read(place, len(RDTSC))
        self.write(place, RDTSC)
        self.ask("s")
        after = self.registers()
        self.write(place, before)
        self.ask(f"G{registers.hex()}")
        return number(after, RDX) << 32 | number(after, RAX)

    def find_spinning(self, code: bytes) -> int:
        """Let the machine run until it spins where this code is loaded; the code's address, made whole again."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            self.send("c")
            time.sleep(POLL_SECONDS)
            self.line.sendall(b"\x03")
            self.receive()
            place = number(self.registers(), RIP)
            if self.read(place, len(code)) == SPIN + code[len(SPIN) :]:
                self.write(place, code[: len(SPIN)])
                return place
        raise EmulatorError(
            f"bench handover: expected {disk.APPLICATION} to start within {SECONDS:.0f} s, found it did not"
        )


def number(registers: bytearray, place: int) -> int:
    """One register."""
    value: int = struct.unpack_from("<Q", registers, 8 * place)[0]
    return value


def spinning_image(path: Path, entry_code: bytes) -> Path:
    """A copy of the image whose application spins on its first instruction."""
    whole = path.read_bytes()
    found = whole.count(entry_code)
    if found != 1:
        raise EmulatorError(f"bench handover: expected the application's first bytes once in the image, found {found}")
    copy = path.with_name("spinning.img")
    disk.write_sparse(copy, whole.replace(entry_code, SPIN + entry_code[len(SPIN) :]))
    return copy


def measure(firmware: str, path: Path, built: Any) -> tuple[int, int, float]:
    """Instructions to the last of firmware's help and from there to the monitor's first, and seconds of both on this host, so emulated."""
    loader = built.programs["loader" if firmware == BIOS else "UEFI loader"]
    monitor = symbol(built.programs["monitor"], "vmm.main.start")
    start = symbol(loader, "boot.uefi.start") if firmware == UEFI else 0
    code = loader.image[start - assemble.APPLICATION_BASE :][:64] if firmware == UEFI else b""
    image = spinning_image(path, code) if firmware == UEFI else path
    line = paths.OUT / "handover.sock"
    line.unlink(missing_ok=True)
    more = (*COUNTING, "-chardev", f"socket,path={line},server=on,wait=off,id=gdb", "-gdb", "chardev:gdb")
    with Qemu(QemuMachine(image, MEMORY, firmware, more=more)), connected(line) as debugger:
        debugger.ask("?")
        if firmware == BIOS:
            debugger.run_to(BOOT_SECTOR)
            alone = symbol(loader, "boot.main.start")
        else:
            alone = debugger.find_spinning(code) - start + symbol(loader, "boot.uefi.move")
        began, first = time.monotonic(), debugger.ticks()
        debugger.run_to(alone)
        left = debugger.ticks()
        debugger.run_to(monitor)
        last = debugger.ticks()
        return left - first - 1, last - left - 1, time.monotonic() - began


def connected(place: Path) -> Debugger:
    """The debugger, once QEMU listens there. Raises EmulatorError."""
    deadline = time.monotonic() + CONNECT_SECONDS
    while time.monotonic() < deadline:
        line = socket.socket(socket.AF_UNIX)
        try:
            line.connect(str(place))
        except OSError:
            line.close()
            time.sleep(0.05)
            continue
        return Debugger(line)
    raise EmulatorError(f"QEMU: expected its debugger at {place} within {CONNECT_SECONDS:.0f} s, found none")


def rows() -> list[Row]:
    """Three rows for each firmware."""
    built, path = build_image(BOX, MEMORY)
    found = []
    for firmware, where in ((BIOS, "the boot sector"), (UEFI, disk.APPLICATION)):
        with_help, alone, seconds = measure(firmware, path, built)
        how = f"TSC ticks in QEMU under -icount shift=0, AHCI disk, image of the box {BOX} alone, from the first instruction of {where}"
        unit = "instructions"
        found += [
            Row(
                f"{firmware}: with firmware's help", with_help, None, unit, f"{how}: reads and firmware's own included"
            ),
            Row(
                f"{firmware}: then, to the monitor",
                alone,
                None,
                unit,
                f"{how}; hashes by the scalar path: TCG has no SHA-NI",
            ),
            Row(f"{firmware}: both, emulated", round(seconds, 2), None, "s", f"{how}: wall time of this host"),
        ]
    return found

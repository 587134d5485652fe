"""Bochs as a machine with VT-x: headless, its first serial port on a loopback socket, ended by process id alone."""

from __future__ import annotations

import os
import selectors
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from types import TracebackType

from pipeline import paths, processes
from pipeline.errors import PipelineError, UsageError

BOCHS = "bochs-bin"
BIOS = Path("/usr/share/bochs/BIOS-bochs-latest")
VGA_BIOS = Path("/usr/share/vgabios/vgabios.bin")
INSTRUCTIONS_PER_SECOND = 50_000_000  # of emulated time: with sync=none the TSC counts instructions at this rate
HOST_MEMORY_LIMIT = 2048  # MiB
CONNECT_SECONDS = 20.0
LOG_TAIL_LINES = 12
GUEST_START = b"c\nq\n"  # what Debian's build, which has the debugger in it, is told

CONFIGURATION = """\
config_interface: textconfig
display_library: rfb, options="timeout=0"
cpu: model={cpu}, count=1, ips={ips}, reset_on_triple_fault=0, ignore_bad_msrs=0
memory: guest={memory}, host={host}
romimage: file={bios}, options=fastboot
vgaromimage: file={vga}
pci: enabled=1, chipset=i440fx
plugin_ctrl: iodebug=1, serial=1, unmapped=1, biosdev=1, speaker=0, parallel=0, gameport=0
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=disk, path={disk}, mode=flat
boot: disk
clock: sync=none, time0=946684800
port_e9_hack: enabled=1
com1: enabled=1, mode=socket-server, dev=127.0.0.1:{port}
log: {log}
panic: action=fatal, rfb=report
error: action=report
info: action=report
debug: action=ignore
mouse: enabled=0
private_colormap: enabled=0
"""


class BochsError(PipelineError):
    """A machine that did not start, ended by itself, or did not say what was waited for."""


@dataclass(frozen=True)
class Machine:
    """What machine to be. Memory in MiB; `script`: further lines for the debugger before it continues."""

    image: Path
    memory: int = 256
    cpu: str = "corei7_skylake_x"
    instructions_per_second: int = INSTRUCTIONS_PER_SECOND
    script: bytes = GUEST_START


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def check_installed() -> None:
    """Refuse a host without Bochs. Raises UsageError."""
    if shutil.which(BOCHS) is None:
        raise UsageError(
            f"expected the program {BOCHS} (Debian package bochs), found none; run: python3 build.py setup"
        )
    for path, package in ((BIOS, "bochsbios"), (VGA_BIOS, "vgabios")):
        if not path.exists():
            raise UsageError(f"expected {path} (Debian package {package}), found none; run: python3 build.py setup")


def cpu_models() -> list[str]:
    """The CPU models that this Bochs knows."""
    shown = subprocess.run([BOCHS, "--help", "cpu"], capture_output=True, text=True, check=False)
    lines = (shown.stdout + shown.stderr).partition("Supported CPU models:")[2].strip().splitlines()
    return [line.strip() for line in takewhile(str.strip, lines)]


def check_cpu(model: str) -> None:
    """Refuse a CPU model that Bochs does not know. Raises UsageError."""
    known = cpu_models()
    if known and model not in known:
        raise UsageError(f"--cpu: expected one of {', '.join(known)}, found {model!r}")


class Bochs:
    """A running machine. Use as a context manager: leaving it ends the process, and only that one."""

    def __init__(self, machine: Machine, sink: Callable[[bytes], None] | None = None) -> None:
        """`sink` is given each piece of serial output as it comes."""
        check_installed()
        self.machine = machine
        self.sink = sink
        self.output = bytearray()
        self.process: subprocess.Popen[bytes] | None = None
        self.connection: socket.socket | None = None
        paths.OUT.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix="bochs-", dir=paths.OUT))
        self.disk = self.folder / "disk.img"  # the copy that is booted

    def __enter__(self) -> Bochs:
        """Start the machine and connect to its serial port."""
        try:
            self.start()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the machine."""
        self.end()

    def start(self) -> None:
        """Write the configuration, start the process, connect. The image is copied: a run never changes it."""
        port = free_port()
        try:
            shutil.copyfile(self.machine.image, self.disk)
        except OSError as error:
            raise UsageError(f"{self.machine.image}: expected a readable disk image: {error.strerror}") from None
        configuration = CONFIGURATION.format(
            cpu=self.machine.cpu,
            ips=self.machine.instructions_per_second,
            memory=self.machine.memory,
            host=min(self.machine.memory, HOST_MEMORY_LIMIT),
            bios=BIOS,
            vga=VGA_BIOS,
            disk=self.disk,
            port=port,
            log=self.folder / "bochs.log",
        )
        (self.folder / "bochsrc").write_text(configuration)
        (self.folder / "go.rc").write_bytes(self.machine.script)
        command = [BOCHS, "-q", "-f", "bochsrc", "-rc", "go.rc"]
        with (self.folder / "stdout").open("wb") as out, (self.folder / "stderr").open("wb") as err:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )
        self.connection = self.connect(port)

    def connect(self, port: int) -> socket.socket:
        """Connect to the serial port; Bochs waits for that before it starts."""
        deadline = time.monotonic() + CONNECT_SECONDS
        while time.monotonic() < deadline:
            self.check_alive("before its serial port could be reached")
            try:
                connection = socket.create_connection(("127.0.0.1", port), timeout=1)
            except OSError:
                time.sleep(0.05)
                continue
            connection.setblocking(False)
            return connection
        raise BochsError(
            f"Bochs: expected its serial port within {CONNECT_SECONDS:.0f} s, found none\n{self.log_tail()}"
        )

    def check_alive(self, when: str) -> None:
        """Raise BochsError if the process has ended."""
        assert self.process is not None
        status = self.process.poll()
        if status is not None:
            raise BochsError(f"Bochs ended with status {status} {when}\n{self.log_tail()}")

    def log_tail(self) -> str:
        """The end of Bochs' log, or of what it wrote before it had one."""
        for name in ("bochs.log", "stderr", "stdout"):
            path = self.folder / name
            lines = path.read_text(errors="replace").splitlines() if path.exists() else []
            if lines:
                telling = [line for line in lines if "PANIC" in line or ">>" in line] or lines
                return "\n".join(f"  {name}: {line}" for line in telling[-LOG_TAIL_LINES:])
        return "  (no log)"

    def read(self, seconds: float) -> bytes:
        """Output that comes within this time, as soon as there is any; empty if none came. Raises BochsError at the end."""
        assert self.connection is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.connection, selectors.EVENT_READ)
            if not selector.select(max(seconds, 0)):
                return b""
        try:
            data = self.connection.recv(65536)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            assert self.process is not None
            try:
                status: object = self.process.wait(5)
            except subprocess.TimeoutExpired:
                status = "unknown: it still runs"
            raise BochsError(f"Bochs closed the serial line (status {status})\n{self.log_tail()}")
        self.output += data
        if self.sink is not None:
            self.sink(data)
        return data

    def wait_for(self, found: Callable[[], bool], what: str, seconds: float) -> None:
        """Read until `found` holds. Raises BochsError naming `what`, and the last line, when the time is over."""
        deadline = time.monotonic() + seconds
        while not found():
            left = deadline - time.monotonic()
            if left <= 0:
                last = bytes(self.output).rstrip().rsplit(b"\n", 1)[-1].decode("ascii", "backslashreplace").strip()
                raise BochsError(
                    f"expected {what} within {seconds:.0f} s, found none; the last line was: {last or '(nothing)'}"
                )
            self.read(min(left, 1.0))

    def send(self, data: bytes) -> None:
        """Type bytes on the serial line."""
        assert self.connection is not None
        self.connection.setblocking(True)
        try:
            self.connection.sendall(data)
        except OSError as error:
            raise BochsError(f"Bochs: the serial line broke: {error.strerror}\n{self.log_tail()}") from None
        finally:
            self.connection.setblocking(False)

    def end(self) -> None:
        """End the process, by its id, and remove what it left."""
        if self.connection is not None:
            self.connection.close()
        if self.process is not None:
            processes.end(self.process)
        if self.folder.exists():
            log = self.folder / "bochs.log"
            if log.exists():
                os.replace(log, paths.OUT / "bochs.log")
            shutil.rmtree(self.folder, ignore_errors=True)

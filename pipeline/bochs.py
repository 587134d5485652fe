"""Bochs as a machine with VT-x: headless, its first serial port on a loopback socket, ended by process id alone."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from pipeline import paths
from pipeline.emulator import Emulator, EmulatorError, tail
from pipeline.errors import UsageError

BOCHS = "bochs-bin"
BIOS = Path("/usr/share/bochs/BIOS-bochs-latest")
VGA_BIOS = Path("/usr/share/vgabios/vgabios.bin")
INSTRUCTIONS_PER_SECOND = 50_000_000  # of emulated time: with sync=none the TSC counts instructions at this rate
HOST_MEMORY_LIMIT = 2048  # MiB
CONNECT_SECONDS = 20.0
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


@dataclass(frozen=True)
class Machine:
    """What machine to be. Memory in MiB; `script`: further lines for the debugger before it continues."""

    image: Path
    memory: int = 256
    cpu: str = "corei7_skylake_x"
    instructions_per_second: int = INSTRUCTIONS_PER_SECOND
    script: bytes = GUEST_START

    @property
    def title(self) -> str:
        """What it is, for people."""
        return f"Bochs ({self.cpu}, {self.memory} MiB)"

    def emulator(self, sink: Callable[[bytes], None]) -> Bochs:
        """What plays it."""
        return Bochs(self, sink)


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


class Bochs(Emulator):
    """Bochs, running a machine."""

    name = "Bochs"

    def __init__(self, machine: Machine, sink: Callable[[bytes], None] | None = None) -> None:
        """`sink` is given each piece of serial output as it comes."""
        check_installed()
        super().__init__(sink)
        self.machine = machine
        self.connection: socket.socket | None = None

    def start(self) -> None:
        """Write the configuration, start the process, connect. The image is copied: a run never changes it."""
        port = free_port()
        self.disk = self.folder / "disk.img"
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
        self.receiver = self.sender = self.connection.fileno()

    def connect(self, port: int) -> socket.socket:
        """Connect to the serial port; Bochs waits for that before it starts."""
        assert self.process is not None
        deadline = time.monotonic() + CONNECT_SECONDS
        while time.monotonic() < deadline:
            status = self.process.poll()
            if status is not None:
                raise EmulatorError(
                    f"Bochs ended with status {status} before its serial port could be reached\n{self.last_words()}"
                )
            try:
                connection = socket.create_connection(("127.0.0.1", port), timeout=1)
            except OSError:
                time.sleep(0.05)
                continue
            connection.setblocking(True)
            return connection
        raise EmulatorError(
            f"Bochs: expected its serial port within {CONNECT_SECONDS:.0f} s, found none\n{self.last_words()}"
        )

    def last_words(self) -> str:
        """The end of Bochs' log, or of what it wrote before it had one."""
        for name in ("bochs.log", "stderr", "stdout"):
            path = self.folder / name
            lines = path.read_text(errors="replace").splitlines() if path.exists() else []
            if lines:
                telling = [line for line in lines if "PANIC" in line or ">>" in line] or lines
                return tail([f"{name}: {line}" for line in telling])
        return "  (no log)"

    def end(self) -> None:
        """End it; its log stays in out/."""
        if self.connection is not None:
            self.connection.close()
        log = self.folder / "bochs.log"
        if log.exists():
            os.replace(log, paths.OUT / "bochs.log")
        super().end()

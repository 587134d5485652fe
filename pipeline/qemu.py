"""QEMU as a machine without VT-x, on any host: SeaBIOS or OVMF, the image as one of four kinds of disk, ended by process id alone."""

from __future__ import annotations

import os
import selectors
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from pipeline import paths, processes
from pipeline.errors import PipelineError, UsageError
from pipeline.secure_boot import enrolled_variables
from pipeline.swtpm import Swtpm

QEMU = "qemu-system-x86_64"
OVMF_CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
OVMF_SECURE_CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd")  # keeps its variables in SMM
OVMF_VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
BIOS, UEFI = "bios", "uefi"
FIRMWARES = (BIOS, UEFI)
DISKS: dict[str, tuple[str, ...]] = {
    "ahci": ("-device", "ide-hd,drive=disk,bootindex=1"),
    "usb": ("-device", "qemu-xhci,id=usb", "-device", "usb-storage,bus=usb.0,drive=disk,bootindex=1"),
    "nvme": ("-device", "nvme,serial=terrane,drive=disk,bootindex=1"),
    "virtio": ("-device", "virtio-blk-pci,drive=disk,bootindex=1"),
}
TPMS = {"tis": "tpm-tis", "crb": "tpm-crb"}  # by interface: QEMU's device
LOG_TAIL_LINES = 12


class QemuError(PipelineError):
    """A machine that did not start, ended by itself, or did not say what was waited for."""


@dataclass(frozen=True)
class QemuMachine:
    """What machine to be. Memory in MiB; `disk`: a key of DISKS; `more`: further arguments."""

    image: Path
    memory: int = 256
    firmware: str = BIOS
    disk: str = "ahci"
    secure_boot: bool = False  # with the keys of this checkout enrolled; UEFI alone
    more: tuple[str, ...] = ()
    tpm: str = ""  # a key of TPMS, or none
    tpm_state: Path = paths.OUT / "tpm"  # the TPM's own memory; made there if need be


def check_installed(firmware: str) -> None:
    """Refuse a host without QEMU or, for UEFI, without OVMF. Raises UsageError."""
    if shutil.which(QEMU) is None:
        raise UsageError(f"expected the program {QEMU} (Debian package qemu-system-x86), found none; install it")
    for path in (OVMF_CODE, OVMF_VARIABLES) if firmware == UEFI else ():
        if not path.exists():
            raise UsageError(f"expected {path} (Debian package ovmf), found none; install it")


def arguments(machine: QemuMachine, folder: Path) -> list[str]:
    """The command line. What is written to the disk goes to a temporary file: a run never changes the image."""
    words = [
        QEMU,
        "-accel",
        "tcg",
        "-cpu",
        "max",
        "-M",
        "q35,smm=on" if machine.secure_boot else "q35",
        "-m",
        str(machine.memory),
        "-display",
        "none",
        "-nodefaults",
    ]
    words += [
        "-vga",
        "std",
        "-no-reboot",
        "-monitor",
        "none",
        "-chardev",
        "stdio,id=com1,signal=off",
        "-serial",
        "chardev:com1",
    ]
    if machine.firmware == UEFI:
        code = OVMF_SECURE_CODE if machine.secure_boot else OVMF_CODE
        words += ["-drive", f"if=pflash,format=raw,readonly=on,file={code}"]
        words += ["-drive", f"if=pflash,format=raw,file={folder / 'variables.fd'}"]
    if machine.secure_boot:
        words += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
    words += ["-drive", f"if=none,id=disk,format=raw,snapshot=on,file={machine.image}"]
    if machine.tpm:
        words += ["-chardev", f"socket,id=tpm-line,path={Swtpm(machine.tpm_state).socket}"]
        words += ["-tpmdev", "emulator,id=tpm,chardev=tpm-line", "-device", f"{TPMS[machine.tpm]},tpmdev=tpm"]
    return [*words, *DISKS[machine.disk], *machine.more]


class Qemu:
    """A running machine. Use as a context manager: leaving it ends the process, and only that one."""

    def __init__(self, machine: QemuMachine, sink: Callable[[bytes], None] | None = None) -> None:
        """`sink` is given each piece of serial output as it comes."""
        check_installed(machine.firmware)
        if not machine.image.is_file():
            raise UsageError(f"{machine.image}: expected a readable disk image, found none")
        self.machine = machine
        self.sink = sink
        self.output = bytearray()
        self.process: subprocess.Popen[bytes] | None = None
        self.tpm = Swtpm(machine.tpm_state) if machine.tpm else None
        paths.OUT.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix="qemu-", dir=paths.OUT))

    def __enter__(self) -> Qemu:
        """Start the machine."""
        variables = self.folder / "variables.fd"
        if self.machine.secure_boot:
            enrolled_variables(OVMF_VARIABLES, variables)
        elif self.machine.firmware == UEFI:
            shutil.copyfile(OVMF_VARIABLES, variables)
        if self.tpm is not None:
            self.tpm.__enter__()
        with (self.folder / "stderr").open("wb") as err:
            self.process = subprocess.Popen(
                arguments(self.machine, self.folder),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err, start_new_session=True,
            )  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the machine, and remove what it left."""
        assert self.process is not None
        processes.end(self.process)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        if self.tpm is not None:
            self.tpm.__exit__(None, None, None)
        shutil.rmtree(self.folder, ignore_errors=True)

    def read(self, seconds: float) -> bytes:
        """Output that comes within this time, as soon as there is any; empty if none came. Raises QemuError at the end."""
        assert self.process is not None
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(max(seconds, 0)):
                return b""
        data = os.read(self.process.stdout.fileno(), 65536)
        if not data:
            lines = (self.folder / "stderr").read_text(errors="replace").splitlines()
            tail = "\n".join(f"  {line}" for line in lines[-LOG_TAIL_LINES:])
            raise QemuError(f"QEMU ended with status {self.process.wait(5)}\n{tail or '  (it said nothing)'}")
        self.output += data
        if self.sink is not None:
            self.sink(data)
        return data

    def wait_for(self, found: Callable[[], bool], what: str, seconds: float) -> None:
        """Read until `found` holds. Raises QemuError naming `what`, and the last line, when the time is over."""
        deadline = time.monotonic() + seconds
        while not found():
            left = deadline - time.monotonic()
            if left <= 0:
                last = bytes(self.output).rstrip().rsplit(b"\n", 1)[-1].decode("ascii", "backslashreplace").strip()
                raise QemuError(
                    f"expected {what} within {seconds:.0f} s, found none; the last line was: {last or '(nothing)'}"
                )
            self.read(min(left, 1.0))

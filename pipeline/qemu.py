"""QEMU: SeaBIOS or OVMF, the image as one of four kinds of disk, without VT-x on any host, or with it where KVM lends the host's."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline import paths
from pipeline.emulator import Emulator, tail
from pipeline.errors import UsageError
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
TCG, KVM = "tcg", "kvm"
PROCESSORS = {TCG: "max", KVM: "host"}  # by accelerator: all that it has, under KVM VT-x too


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
    accelerator: str = TCG  # KVM: a host that lends VT-x (pipeline/kvm.py)

    @property
    def title(self) -> str:
        """What it is, for people."""
        under = " under KVM" if self.accelerator == KVM else ""
        return f"QEMU{under} ({self.firmware}, {self.disk}, {self.memory} MiB)"

    def emulator(self, sink: Callable[[bytes], None]) -> Qemu:
        """What plays it."""
        return Qemu(self, sink)


def check_installed(firmware: str) -> None:
    """Refuse a host without QEMU or, for UEFI, without OVMF. Raises UsageError."""
    if shutil.which(QEMU) is None:
        raise UsageError(f"expected the program {QEMU} (Debian package qemu-system-x86), found none; install it")
    for path in (OVMF_CODE, OVMF_VARIABLES) if firmware == UEFI else ():
        if not path.exists():
            raise UsageError(f"expected {path} (Debian package ovmf), found none; install it")


def option(path: Path) -> str:
    """A path as a part of an option: QEMU reads two commas as one of the path's."""
    return str(path).replace(",", ",,")


def arguments(machine: QemuMachine, folder: Path) -> list[str]:
    """The command line. What is written to the disk goes to a temporary file: a run never changes the image."""
    chipset = "q35,smm=on" if machine.secure_boot else "q35"
    words = [QEMU, "-accel", machine.accelerator, "-cpu", PROCESSORS[machine.accelerator], "-M", chipset]
    words += ["-m", str(machine.memory), "-display", "none", "-nodefaults", "-vga", "std", "-no-reboot"]
    words += ["-monitor", "none", "-chardev", "stdio,id=com1,signal=off", "-serial", "chardev:com1"]
    if machine.firmware == UEFI:
        code = OVMF_SECURE_CODE if machine.secure_boot else OVMF_CODE
        words += ["-drive", f"if=pflash,format=raw,readonly=on,file={option(code)}"]
        words += ["-drive", f"if=pflash,format=raw,file={option(folder / 'variables.fd')}"]
    if machine.secure_boot:
        words += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
    words += ["-drive", f"if=none,id=disk,format=raw,snapshot=on,file={option(machine.image)}"]
    if machine.tpm:
        words += ["-chardev", f"socket,id=tpm-line,path={option(Swtpm(machine.tpm_state).socket)}"]
        words += ["-tpmdev", "emulator,id=tpm,chardev=tpm-line", "-device", f"{TPMS[machine.tpm]},tpmdev=tpm"]
    return [*words, *DISKS[machine.disk], *machine.more]


class Qemu(Emulator):
    """QEMU, running a machine."""

    name = "QEMU"

    def __init__(self, machine: QemuMachine, sink: Callable[[bytes], None] | None = None) -> None:
        """`sink` is given each piece of serial output as it comes."""
        check_installed(machine.firmware)
        if not machine.image.is_file():
            raise UsageError(f"{machine.image}: expected a readable disk image, found none")
        super().__init__(sink)
        self.machine = machine
        self.disk = machine.image
        self.tpm: Swtpm | None = None

    def start(self) -> None:
        """Start the TPM, if any, and the machine."""
        variables = self.folder / "variables.fd"
        if self.machine.secure_boot:
            enrolled_variables(OVMF_VARIABLES, variables)
        elif self.machine.firmware == UEFI:
            shutil.copyfile(OVMF_VARIABLES, variables)
        if self.machine.tpm:
            self.tpm = Swtpm(self.machine.tpm_state).__enter__()
        with (self.folder / "stderr").open("wb") as err:
            self.process = subprocess.Popen(
                arguments(self.machine, self.folder),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err, start_new_session=True, bufsize=0,
            )  # fmt: skip
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.sender, self.receiver = self.process.stdin.fileno(), self.process.stdout.fileno()

    def last_words(self) -> str:
        """The end of what QEMU wrote on standard error."""
        return tail((self.folder / "stderr").read_text(errors="replace").splitlines()) or "  (it said nothing)"

    def end(self) -> None:
        """End it, and its TPM."""
        super().end()
        for stream in (self.process.stdin, self.process.stdout) if self.process is not None else ():
            if stream is not None:
                stream.close()
        if self.tpm is not None:
            self.tpm.__exit__(None, None, None)

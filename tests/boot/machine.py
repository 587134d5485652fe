"""A small Bochs machine for the boot tests: boots a raw disk image, returns what came out of COM1 and stops."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

BOCHS = shutil.which("bochs-bin") or shutil.which("bochs")
_CONFIGURATION = """\
config_interface: textconfig
display_library: rfb, options="timeout=0"
cpu: model={model}, count={processors}, ips=4000000, reset_on_triple_fault=0, ignore_bad_msrs=0
memory: guest={memory}, host={memory}
romimage: file=/usr/share/bochs/BIOS-bochs-latest, options=fastboot
vgaromimage: file=/usr/share/vgabios/vgabios.bin
pci: enabled=1, chipset=i440fx
plugin_ctrl: iodebug=1, serial=1, unmapped=1, biosdev=1, speaker=0, parallel=0, gameport=0
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=disk, path={image}, mode=flat
boot: disk
clock: sync=none, time0=946684800
com1: enabled=1, mode=file, dev={serial}
log: {log}
panic: action=fatal, rfb=report
error: action=report
info: action=report
debug: action=ignore
mouse: enabled=0
private_colormap: enabled=0
"""


@dataclass(frozen=True)
class Outcome:
    """What a run gave: the serial output and the emulator's log."""

    serial: str
    log: str


def boot(
    folder: Path, image: bytes, *, until: str | None = "terrane| stopped", model: str = "corei7_skylake_x",
    memory: int = 64, processors: int = 1, script: str = "c\n", timeout_s: float = 90,
) -> Outcome:  # fmt: skip
    """Boot an image until the serial line holds `until`, or the debugger's script is over (or the time is: a failure by then)."""
    if BOCHS is None:
        raise RuntimeError("Bochs is not installed")
    size = (len(image) + 516095) // 516096 * 516096  # whole cylinders: 16 heads of 63 sectors
    disk, serial, log = folder / "disk.img", folder / "com1.out", folder / "bochs.log"
    (folder / "disk.img.lock").unlink(missing_ok=True)  # left by a run that was ended
    disk.write_bytes(image.ljust(size, b"\0"))
    (folder / "bochsrc").write_text(
        _CONFIGURATION.format(model=model, memory=memory, processors=processors, image=disk, serial=serial, log=log)
    )
    (folder / "go.rc").write_text(script + "q\n")
    serial.write_bytes(b"")
    with open(folder / "out", "wb") as out:
        process = subprocess.Popen(
            [BOCHS, "-q", "-f", str(folder / "bochsrc"), "-rc", str(folder / "go.rc")],
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd=folder,
            env={**os.environ, "LANG": "C"},
        )  # fmt: skip
    end = time.monotonic() + timeout_s
    try:
        while process.poll() is None and time.monotonic() < end:
            if until is not None and until.encode() in serial.read_bytes():
                break
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    return Outcome(serial.read_text("latin-1"), log.read_text("latin-1"))

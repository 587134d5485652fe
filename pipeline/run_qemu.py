"""Boot an image in QEMU, from BIOS or UEFI: firmware, loader and monitor run there, up to the line that says that VT-x is missing.

QEMU without a host's VT-x has none to give, so no box starts and nothing is verified: that is what Bochs is for.
"""

from __future__ import annotations

import json
import re
import time

from pipeline import evidence, paths
from pipeline.console import MONITOR
from pipeline.disk import APPLICATION
from pipeline.errors import OK
from pipeline.progress import say
from pipeline.qemu import Qemu, QemuMachine
from pipeline.run import EVIDENCE, Refused, Terminal, checked_bundle

FIRMWARE_REFUSED = re.compile(r"BdsDxe: failed to load Boot\w+ .*: (Access Denied|Security Violation)")
WITHOUT_VTX = "refused: the processor has no VT-x"  # the monitor's own words (vmm/vmx/capability.py)
REACHED = "the monitor runs; QEMU has no VT-x to give, so that no box was started, and nothing was verified"


def keep_evidence(qemu: Qemu, terminal: Terminal, seconds: float) -> None:
    """Wait for the bundle that the monitor prints, and write it to out/evidence.bin."""
    said = terminal.transcript.said
    qemu.wait_for(lambda: EVIDENCE.search(said(MONITOR)) is not None, "the monitor's evidence", seconds)
    bundle = checked_bundle(said(MONITOR))
    (paths.OUT / "evidence.bin").write_bytes(bundle)
    items = {item.kind: len(item.data) for item in evidence.parse(bundle)}
    words = ", ".join(f"{kind.name.lower()} {size}" for kind, size in items.items())
    terminal.note(f"The monitor's evidence is in out/evidence.bin (bytes: {words})")


def run_qemu(machine: QemuMachine, seconds: float, as_json: bool) -> int:
    """Boot; the exit status: 0 if the monitor was reached. Raises PipelineError where anything else was refused, or time ran out."""
    terminal = Terminal(show=not as_json)
    started = time.monotonic()
    say(f"Booting {machine.image.name} in QEMU ({machine.firmware}, {machine.disk}, {machine.memory} MiB)")
    with Qemu(machine, terminal.take) as qemu:

        def ended() -> str | None:
            refused = FIRMWARE_REFUSED.search(qemu.output.decode("latin-1"))
            return f"firmware does not start {APPLICATION}: {refused[1]}" if refused else terminal.transcript.refusal()

        qemu.wait_for(lambda: ended() is not None, "the monitor's word about this processor", seconds)
        end = str(ended())
        if machine.tpm and end.startswith(WITHOUT_VTX):
            keep_evidence(qemu, terminal, seconds)
        terminal.note(f"{time.monotonic() - started:.1f} s after power-on")
        terminal.settle()
    if not end.startswith(WITHOUT_VTX):
        raise Refused(end)
    if as_json:
        values = {"engine": "qemu", "firmware": machine.firmware, "disk": machine.disk, "reached": "monitor"}
        print(json.dumps({**values, "verified": False, "end": end}, indent=1))
    else:
        print(f"not verified: {REACHED}")
    return OK

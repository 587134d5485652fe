"""Boot an image in QEMU, from BIOS or UEFI: firmware, loader and monitor run there, up to the line that says that VT-x is missing.

QEMU without a host's VT-x has none to give, so no box starts: the chain from TPM to monitor is verified here, that from monitor to box in
Bochs.
"""

from __future__ import annotations

import json
import time

from pipeline import disk, image, report
from pipeline.console import MONITOR
from pipeline.emulator import Emulator
from pipeline.errors import OK, REFUSED
from pipeline.progress import say
from pipeline.qemu import QemuMachine
from pipeline.reference import Reference
from pipeline.run import EVIDENCE, Refused, Terminal, checked_bundle, completed, root_of
from pipeline.verify import Verdict, verify_monitor

WITHOUT_VTX = "refused: the processor has no VT-x"  # the monitor's own words (vmm/vmx/capability.py)
REACHED = "The monitor runs. QEMU has no VT-x to give, so that no box was started."


def attest(
    machine: QemuMachine, emulator: Emulator, terminal: Terminal, expected: Reference, seconds: float
) -> Verdict | None:
    """Verify the evidence that the monitor prints; None where the machine's TPM gave it no secret of its own."""
    said = terminal.transcript.said
    emulator.wait_for(lambda: EVIDENCE.search(said(MONITOR)) is not None, "the monitor's evidence", seconds)
    links = image.read_release_chain(disk.read_terrane_partition(machine.image))
    bundle = completed(checked_bundle(said(MONITOR)), links[:3], terminal)
    root = root_of(machine, bundle, terminal)
    return root and verify_monitor(bundle, expected, root=root)


def run_qemu(machine: QemuMachine, expected: Reference | None, seconds: float, as_json: bool) -> int:
    """Boot, and verify the chain up to the monitor; the exit status. Raises PipelineError where anything was refused, or time ran out.

    `expected` None: the image has no reference, and is only booted.
    """
    terminal = Terminal(show=not as_json)
    started = time.monotonic()
    say(f"Booting {machine.image.name} in {machine.title}")
    verdict = None
    refusal = terminal.transcript.refusal
    with machine.emulator(terminal.take) as emulator:
        emulator.wait_for(lambda: refusal() is not None, "the monitor's word about this processor", seconds)
        end = str(refusal())
        if expected is not None and end.startswith(WITHOUT_VTX):
            verdict = attest(machine, emulator, terminal, expected, seconds)
        terminal.note(f"{time.monotonic() - started:.1f} s after power-on")
        terminal.settle()
    if not end.startswith(WITHOUT_VTX):
        raise Refused(end)
    if as_json:
        values = {
            "engine": "qemu",
            "firmware": machine.firmware,
            "disk": machine.disk,
            "reached": "monitor",
            "end": end,
        }
        found = json.loads(report.verdict_json(verdict)) if verdict else {"verified": False}
        print(json.dumps({**values, **found}, indent=1))
    else:
        print(report.tree(verdict) if verdict else "not verified")
        print(REACHED)
    return REFUSED if expected is not None and verdict is None else OK

"""Boot an image in QEMU, from BIOS or UEFI: firmware, loader and monitor run there, up to the line that says that VT-x is missing.

QEMU without a host's VT-x has none to give, so no box starts: the chain from TPM to monitor is verified here, that from monitor to box in
Bochs.
"""

from __future__ import annotations

import json
import re
import time

from pipeline import disk, image, paths, provision, report
from pipeline.console import MONITOR
from pipeline.errors import OK
from pipeline.progress import say
from pipeline.qemu import Qemu, QemuMachine
from pipeline.reference import Reference
from pipeline.run import EVIDENCE, Refused, Terminal, checked_bundle, with_release_chain
from pipeline.verify import Root, Verdict, verify_monitor

FIRMWARE_REFUSED = re.compile(r"BdsDxe: failed to load Boot\w+ .*: (Access Denied|Security Violation)")
WITHOUT_VTX = "refused: the processor has no VT-x"  # the monitor's own words (vmm/vmx/capability.py)
REACHED = "The monitor runs. QEMU has no VT-x to give, so that no box was started."


def fetch_evidence(qemu: Qemu, terminal: Terminal, seconds: float) -> bytes:
    """Wait for the bundle that the monitor prints, complete it with what the machine does not have, and write it to out/evidence.bin."""
    said = terminal.transcript.said
    qemu.wait_for(lambda: EVIDENCE.search(said(MONITOR)) is not None, "the monitor's evidence", seconds)
    bundle = checked_bundle(said(MONITOR))
    links = image.read_release_chain(disk.read_terrane_partition(qemu.machine.image))
    bundle = with_release_chain(bundle, links[:3])
    machine = provision.machine_of(bundle)
    if machine is not None:
        terminal.note(f"This is the machine {machine.name} of keys/machines")
        bundle = provision.with_machine(bundle, machine)
    (paths.OUT / "evidence.bin").write_bytes(bundle)
    return bundle


def verify(machine: QemuMachine, bundle: bytes, expected: Reference, terminal: Terminal) -> Verdict | None:
    """Verify the monitor's evidence at the root that this machine can have; None where its TPM gave it no secret of its own."""
    if provision.machine_of(bundle) is not None:
        return verify_monitor(bundle, expected, root=Root.TPM)
    if not machine.tpm:
        return verify_monitor(bundle, expected, root=Root.DEVELOPMENT)
    terminal.note(
        "The TPM gave the loader no secret (it says why above): `build.py provision` prepares a TPM and approves a boot"
    )
    return None


def run_qemu(machine: QemuMachine, expected: Reference | None, seconds: float, as_json: bool) -> int:
    """Boot, and verify the chain up to the monitor; the exit status. Raises PipelineError where anything was refused, or time ran out.

    `expected` None: the image has no reference, and is only booted.
    """
    terminal = Terminal(show=not as_json)
    started = time.monotonic()
    say(f"Booting {machine.image.name} in QEMU ({machine.firmware}, {machine.disk}, {machine.memory} MiB)")
    verdict = None
    with Qemu(machine, terminal.take) as qemu:

        def ended() -> str | None:
            refused = FIRMWARE_REFUSED.search(qemu.output.decode("latin-1"))
            return (
                f"firmware does not start {disk.APPLICATION}: {refused[1]}"
                if refused
                else terminal.transcript.refusal()
            )

        qemu.wait_for(lambda: ended() is not None, "the monitor's word about this processor", seconds)
        end = str(ended())
        if expected is not None and end.startswith(WITHOUT_VTX):
            verdict = verify(machine, fetch_evidence(qemu, terminal, seconds), expected, terminal)
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
    return OK

"""`build.py provision`: prepare a TPM, approve a boot, raise the floor (docs/evidence.md)."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509

from pipeline import event_log, evidence, paths, provision, reference
from pipeline.errors import OK, PipelineError, UsageError
from pipeline.evidence import Kind
from pipeline.progress import step
from pipeline.swtpm import Swtpm
from pipeline.tpm_tools import TpmTools
from pipeline.verify_tpm import check_loader, check_ours


def perform(options: argparse.Namespace) -> int:
    """Do what the options ask. Raises PipelineError."""
    if not options.name or Path(options.name).name != options.name or options.name.startswith("."):
        raise UsageError(f"NAME: expected a plain name, found {options.name!r}")
    if options.approve is not None:
        return approve(options)
    if options.raise_floor is not None:
        with tools_of(options) as tools:
            base = provision.counter_base_of(options.name)
            value = provision.raise_floor(tools, base, options.raise_floor)
        print(f"{options.name}: the floor is {options.raise_floor} (counter {value}); older images boot there no more")
        return OK
    return prepare(options)


@contextmanager
def tools_of(options: argparse.Namespace) -> Iterator[TpmTools]:
    """The TPM that the options name."""
    if options.swtpm is None:
        with TpmTools(options.tcti or "device:/dev/tpmrm0") as tools:
            yield tools
        return
    with Swtpm(Path(options.swtpm), for_tools=True) as software, TpmTools(software.tcti) as tools:
        yield tools


def prepare(options: argparse.Namespace) -> int:
    """Prepare the TPM and certify the machine."""
    trusted = [certificate for name in options.endorsement_ca for certificate in read_authorities(name)]
    owner = provision.load_owner_keys()
    with tools_of(options) as tools, step("Provisioning the TPM"):
        machine = provision.provision(tools, owner, options.floor, trusted, options.endorsement_unchecked)
    place = provision.keep(machine, options.name)
    if not (paths.KEYS / provision.APPROVALS).exists():
        provision.write_table(provision.empty_table(owner.policy.public_key()))
    if options.json:
        values = {"machine": options.name, "folder": str(place), "device_key": machine.device_key.hex()}
        print(json.dumps({**values, "endorsement_certificate": machine.endorsement.certificate}, indent=1))
        return OK
    print(f"device key      {machine.device_key.hex()}")
    print(f"endorsement     {machine.endorsement.certificate}")
    print(f"certificates in {place.relative_to(paths.ROOT)}; next: boot it, then approve that boot with --approve")
    return OK


def read_authorities(name: str) -> list[x509.Certificate]:
    """The certificates of a PEM file. Raises UsageError."""
    try:
        return x509.load_pem_x509_certificates(Path(name).read_bytes())
    except OSError as error:
        raise UsageError(f"{name}: expected certificates in PEM, cannot read it: {error.strerror}") from None
    except ValueError:
        raise UsageError(f"{name}: expected certificates in PEM, found something else") from None


def approve(options: argparse.Namespace) -> int:
    """Add the boot of an evidence file to the approval table, if it is one of this build."""
    path = Path(options.approve)
    try:
        bundle = evidence.from_text_or_bytes(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: expected an evidence file, cannot read it: {error.strerror}") from None
    logs = [item.data for item in evidence.parse(bundle) if item.kind is Kind.EVENT_LOG]
    if len(logs) != 1:
        raise PipelineError(f"{path}: expected one event log, found {len(logs)}: did that machine find its TPM?")
    expected = reference.load(Path(options.expect) if options.expect else paths.REFERENCE)
    events = event_log.before_end(logs[0], event_log.parse(logs[0]))
    check_ours(events, expected)  # what is approved must be what was built, not just anything that booted
    firmware = check_loader(events, expected.boot)
    mask, values = provision.boot_values(logs[0])
    owner = provision.load_owner_keys()
    base = provision.counter_base_of(options.name)
    row = provision.approve(owner, mask, values, base, expected.security_version)
    provision.write_table(provision.add_approval(provision.read_table(owner), owner, row))
    print(
        f"{options.name}: boots from {firmware.upper()} like this one may read the device secret; build again to carry it"
    )
    return OK

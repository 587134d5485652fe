"""`build.py provision`: prepare a TPM, approve a boot, raise the floor (docs/evidence.md)."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509

from pipeline import event_log, evidence, paths, provision, reference, tpm
from pipeline.errors import OK, PipelineError, UsageError
from pipeline.evidence import Kind
from pipeline.progress import step
from pipeline.swtpm import Swtpm
from pipeline.tpm_tools import TpmTools


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
    """Add boots of an image to the approval table of a machine, whose firmware's part comes from evidence that it made."""
    path = Path(options.approve)
    try:
        bundle = evidence.from_text_or_bytes(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: expected an evidence file, cannot read it: {error.strerror}") from None
    logs = [item.data for item in evidence.parse(bundle) if item.kind is Kind.EVENT_LOG]
    if len(logs) != 1:
        raise PipelineError(f"{path}: expected one event log, found {len(logs)}: did that machine find its TPM?")
    expected = reference.load(Path(options.expect) if options.expect else paths.REFERENCE)
    check_quoted(bundle, paths.KEYS / provision.MACHINES / options.name)
    mask, values = provision.boot_values(logs[0], expected.boot)
    firmware = "UEFI" if mask == provision.UEFI_MASK else "BIOS"
    owner = provision.load_owner_keys()
    base = provision.counter_base_of(options.name)
    row = provision.approve(owner, mask, values, base, expected.security_version)
    provision.write_table(provision.add_approval(provision.read_table(owner), owner, row))
    print(f"{options.name}: boots of this image from {firmware} may read the device secret; build again to carry that")
    return OK


def check_quoted(bundle: bytes, place: Path) -> None:
    """Where there is a quote, the log must be the one that this machine's TPM vouches for. A first boot has none: its owner is at hand."""
    items = {item.kind: item.data for item in evidence.parse(bundle)}
    if Kind.QUOTE not in items:
        return
    key = tpm.parse_public((place / "attestation-key.tpmt").read_bytes())
    quote = tpm.parse_quote(items[Kind.QUOTE])
    if not key.verify(items.get(Kind.QUOTE_SIGNATURE, b""), items[Kind.QUOTE]):
        raise PipelineError("quote: expected one by the attestation key of this machine, found another's")
    values = event_log.replay(event_log.parse(items[Kind.EVENT_LOG]))
    if tpm.pcr_digest(values, quote.pcr_mask) != quote.pcr_digest:
        raise PipelineError("event log: expected the log that the quote is about, found another")

"""`build.py provision`: prepare a TPM, approve a boot, raise the floor (docs/evidence.md)."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509

from pipeline import approvals, event_log, evidence, machines, paths, provision, reference, tpm
from pipeline.errors import OK, PipelineError, UsageError
from pipeline.evidence import Kind
from pipeline.progress import step
from pipeline.swtpm import Swtpm
from pipeline.tpm_tools import TpmTools

TPM_DEVICE = Path("/dev/tpmrm0")  # Linux's own, with its resource manager


def perform(options: argparse.Namespace) -> int:
    """Do what the options ask. Raises PipelineError."""
    if not options.name or Path(options.name).name != options.name or options.name.startswith("."):
        raise UsageError(f"NAME: expected a plain name, found {options.name!r}")
    if options.expect is not None and options.approve is None:
        raise UsageError("--expect: has a meaning only with --approve")
    if options.approve is not None:
        return approve(options)
    if options.raise_floor is not None:
        with tools_of(options) as tools:
            base = machines.counter_base_of(machines.place_of(options.name, paths.KEYS))
            value = provision.raise_floor(tools, base, options.raise_floor)
        print(f"{options.name}: the floor is {options.raise_floor} (counter {value}); older images boot there no more")
        return OK
    return prepare(options)


@contextmanager
def tools_of(options: argparse.Namespace) -> Iterator[TpmTools]:
    """The TPM that the options name."""
    if options.swtpm is None:
        if options.tcti is None and not TPM_DEVICE.exists():
            raise UsageError(f"expected a TPM at {TPM_DEVICE}, found none; --tcti or --swtpm names another")
        with TpmTools(options.tcti or f"device:{TPM_DEVICE}") as tools:
            yield tools
        return
    with Swtpm(Path(options.swtpm), for_tools=True) as software, TpmTools(software.tcti) as tools:
        yield tools


def prepare(options: argparse.Namespace) -> int:
    """Prepare the TPM and certify the machine."""
    trusted = [certificate for name in options.endorsement_ca for certificate in read_authorities(name)]
    owner = provision.load_owner_keys(paths.KEYS)
    with tools_of(options) as tools, step("Provisioning the TPM"):
        machine = provision.provision(tools, owner, options.floor, trusted, options.endorsement_unchecked)
    place = machines.keep(machine, options.name, paths.KEYS)
    if approvals.load(paths.KEYS) is None:
        approvals.write(approvals.table(owner.policy.public_key(), []), paths.KEYS)
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
    bundle = evidence.load(Path(options.approve))
    logs = [item.data for item in evidence.parse(bundle) if item.kind is Kind.EVENT_LOG]
    if len(logs) != 1:
        raise PipelineError(
            f"{options.approve}: expected one event log, found {len(logs)}: did that machine find its TPM?"
        )
    expected = reference.load(Path(options.expect) if options.expect else paths.REFERENCE)
    place = machines.place_of(options.name, paths.KEYS)
    base = machines.counter_base_of(place)
    try:
        check_quoted(bundle, logs[0], place)
        mask, values = approvals.boot_values(logs[0], expected.boot)
    except (event_log.EventLogError, tpm.TpmError) as error:
        raise PipelineError(f"{options.approve}: {error}") from None
    policy = provision.load_owner_keys(paths.KEYS).policy
    row = approvals.approve(policy, mask, values, base, expected.security_version)
    before = approvals.load(paths.KEYS) or approvals.table(policy.public_key(), [])
    after = approvals.add(before, policy.public_key(), row, paths.KEYS / approvals.FILE)
    approvals.write(after, paths.KEYS)
    firmware = "UEFI" if mask == approvals.UEFI_MASK else "BIOS"
    print(f"{options.name}: boots of this image from {firmware} may read the device secret; build again to carry that")
    return OK


def check_quoted(bundle: bytes, log: bytes, place: Path) -> None:
    """Where there is a quote, the log must be the one that this machine's TPM vouches for. A first boot has none: its owner is at hand."""
    items = {item.kind: item.data for item in evidence.parse(bundle)}
    if Kind.QUOTE not in items:
        return
    quote = tpm.parse_quote(items[Kind.QUOTE])
    if not machines.attestation_key_of(place).verify(items.get(Kind.QUOTE_SIGNATURE, b""), items[Kind.QUOTE]):
        raise tpm.TpmError(f"quote: expected one by the attestation key of {place.name}, found another's")
    digest = tpm.pcr_digest(event_log.replay(event_log.parse(log)), quote.pcr_mask)
    if digest != quote.pcr_digest:
        raise event_log.EventLogError(
            f"event log: expected one with the quote's PCR digest {quote.pcr_digest.hex()}, found {digest.hex()}"
        )

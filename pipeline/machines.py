"""What provisioning left of each machine in keys/machines/NAME: its certificate, attestation key, and counter base. All of it is public."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pipeline import evidence, tpm
from pipeline.errors import UsageError
from pipeline.evidence import Kind
from pipeline.provision import Provisioned

FOLDER: Final = "machines"
CERTIFICATE, ATTESTATION_KEY, FACTS = "device.der", "attestation-key.tpmt", "machine.json"


def place_of(name: str, folder: Path) -> Path:
    """Where a machine's files are."""
    return folder / FOLDER / name


def keep(machine: Provisioned, name: str, folder: Path) -> Path:
    """Write what is public of a machine; its folder."""
    place = place_of(name, folder)
    place.mkdir(parents=True, exist_ok=True)
    (place / CERTIFICATE).write_bytes(machine.certificate.public_bytes(Encoding.DER))
    (place / ATTESTATION_KEY).write_bytes(machine.attestation_key)
    values = {
        "device_key": machine.device_key.hex(),
        "endorsement_key_name": machine.endorsement.name.hex(),
        "endorsement_certificate": machine.endorsement.certificate,
        "counter_base": machine.counter_base,
    }
    (place / FACTS).write_text(json.dumps(values, indent=1) + "\n")
    return place


def read(path: Path) -> bytes:
    """One of the files. Raises UsageError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: expected what `provision` left of a machine: {error.strerror}") from None


def certificate_of(place: Path) -> x509.Certificate:
    """The machine's certificate. Raises UsageError."""
    try:
        return x509.load_der_x509_certificate(read(place / CERTIFICATE))
    except ValueError as error:
        raise UsageError(f"{place / CERTIFICATE}: expected a certificate in DER, found none: {error}") from None


def attestation_key_of(place: Path) -> tpm.SigningKey:
    """The machine's attestation key. Raises UsageError."""
    try:
        return tpm.parse_public(read(place / ATTESTATION_KEY))
    except tpm.TpmError as error:
        raise UsageError(f"{place / ATTESTATION_KEY}: {error}") from None


def counter_base_of(place: Path) -> int:
    """The counter base of the machine. Raises UsageError."""
    path = place / FACTS
    try:
        base = json.loads(read(path))["counter_base"]
    except (ValueError, KeyError, TypeError):
        base = None
    if type(base) is not int:
        raise UsageError(f"{path}: expected JSON with a number counter_base, found something else")
    return base


def with_machine(bundle: bytes, place: Path) -> bytes:
    """A bundle with the owner's two items about a machine, which the machine does not have itself. Raises UsageError, EvidenceError."""
    certificate_of(place), attestation_key_of(place)
    names = {Kind.DEVICE_CERTIFICATE: CERTIFICATE, Kind.ATTESTATION_KEY: ATTESTATION_KEY}
    items = [item for item in evidence.parse(bundle) if item.kind not in names]
    return evidence.pack([*items, *(evidence.Item(kind, read(place / name)) for kind, name in names.items())])


def machine_of(bundle: bytes, folder: Path) -> Path | None:
    """The folder of the machine that made a bundle, by its device key; None for one that was not provisioned here.

    Raises UsageError for a folder that provisioning did not leave so.
    """
    devices = [item.data for item in evidence.parse(bundle) if item.kind is Kind.DEVICE]
    for place in sorted(place_of("", folder).glob("*")) if len(devices) == 1 else ():
        if certificate_of(place).public_key() == x509.load_der_x509_certificate(devices[0]).public_key():
            return place
    return None

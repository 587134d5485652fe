"""UEFI Secure Boot with keys of one's own: PK, KEK and db, the files that enrol them, and a variable store in which they are.

The platform key (PK) allows changes of KEK, KEK those of db, and firmware starts what db's key has signed (UEFI 2.10, section 32.3).
Made once in keys/secure-boot/ by `build.py keys --secure-boot`, as PEM, the keys readable by their owner alone; never overwritten.
"""

from __future__ import annotations

import datetime
import hashlib
import struct
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from pipeline import paths
from pipeline.authenticode import Signer, detached
from pipeline.errors import PipelineError, UsageError
from pipeline.keys import check_mode, write_new

FOLDER: Final = paths.KEYS / "secure-boot"
NAMES: Final = ("PK", "KEK", "db")
KEY_BITS: Final = 2048  # what every UEFI firmware checks
GLOBAL_VARIABLE: Final = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")  # of PK and KEK
IMAGE_SECURITY: Final = uuid.UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")  # of db
CERT_X509: Final = uuid.UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
CERT_PKCS7: Final = uuid.UUID("4aafd29d-68df-49ee-8aa9-347d375665a7")
ATTRIBUTES: Final = 0x27  # non-volatile, boot and run-time access, time-based authenticated write
UEFI_GUID_CERTIFICATE: Final = 0x0EF1
NOT_BEFORE: Final = datetime.datetime(2018, 3, 22, 23, 59, 59)
NOT_AFTER: Final = datetime.datetime(9999, 12, 31, 23, 59, 59)


@dataclass(frozen=True)
class SecureBootKeys:
    """The three signers of a checkout."""

    pk: Signer
    kek: Signer
    db: Signer

    def owner(self) -> uuid.UUID:
        """The owner that the signature lists name: a version 8 UUID of the platform key."""
        digest = bytearray(hashlib.sha256(self.pk.der()).digest()[:16])
        digest[6], digest[8] = digest[6] & 0x0F | 0x80, digest[8] & 0x3F | 0x80
        return uuid.UUID(bytes=bytes(digest))

    def chain(self) -> tuple[tuple[str, uuid.UUID, Signer, Signer], ...]:
        """Each variable's name and namespace, what it holds, and who signs its change."""
        return (
            ("PK", GLOBAL_VARIABLE, self.pk, self.pk),
            ("KEK", GLOBAL_VARIABLE, self.kek, self.pk),
            ("db", IMAGE_SECURITY, self.db, self.kek),
        )


def load(folder: Path = FOLDER) -> SecureBootKeys | None:
    """The keys, or None where there are none. Raises UsageError for files that are damaged, missing, or open to others."""
    if not folder.exists():
        return None
    return SecureBootKeys(*(load_signer(folder, name) for name in NAMES))


def load_signer(folder: Path, name: str) -> Signer:
    """One key and its certificate."""
    key_path, certificate_path = folder / f"{name}.key", folder / f"{name}.crt"
    try:
        check_mode(key_path)
        key = load_pem_private_key(key_path.read_bytes(), None)
        certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"{error.filename}: expected a key made by `keys --secure-boot`, found: {error.strerror}"
        ) from None
    except (ValueError, TypeError):
        raise UsageError(
            f"{folder / name}.key, .crt: expected a PEM key and its certificate, found something else"
        ) from None
    if not isinstance(key, rsa.RSAPrivateKey) or key.public_key() != certificate.public_key():
        raise UsageError(
            f"{certificate_path}: expected the certificate of the RSA key {key_path.name}, found another's"
        )
    return Signer(key, certificate)


def make(folder: Path = FOLDER) -> SecureBootKeys:
    """The keys; those of which there is nothing yet are made. Raises UsageError as `load` does."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in NAMES:
        if not any((folder / f"{name}{suffix}").exists() for suffix in (".key", ".crt")):
            key = rsa.generate_private_key(65537, KEY_BITS)
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            write_new(folder / f"{name}.key", pem.decode())
            write_new(folder / f"{name}.crt", self_signed(name, key).public_bytes(Encoding.PEM).decode())
    keys = load(folder)
    assert keys is not None
    return keys


def self_signed(name: str, key: rsa.RSAPrivateKey) -> x509.Certificate:
    """The certificate of a Secure Boot key."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Terrane Secure Boot {name}")])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(NOT_AFTER)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )


def signature_list(certificate: bytes, owner: uuid.UUID) -> bytes:
    """An EFI_SIGNATURE_LIST with one X.509 certificate (UEFI 2.10, section 32.4.1)."""
    size = 16 + len(certificate)
    return struct.pack("<16sIII16s", CERT_X509.bytes_le, 28 + size, 0, size, owner.bytes_le) + certificate


def authenticated(name: str, namespace: uuid.UUID, value: bytes, signer: Signer) -> bytes:
    """What SetVariable takes for a signed change: EFI_VARIABLE_AUTHENTICATION_2, then the value (UEFI 2.10, section 8.2.2)."""
    time = struct.pack("<HBBBBBxIhBx", *NOT_BEFORE.timetuple()[:6], 0, 0, 0)
    signed = name.encode("utf-16-le") + namespace.bytes_le + struct.pack("<I", ATTRIBUTES) + time + value
    signature = detached(signer, signed)
    header = struct.pack("<IHH16s", 24 + len(signature), 0x0200, UEFI_GUID_CERTIFICATE, CERT_PKCS7.bytes_le)
    return time + header + signature + value


def enrolment_files(keys: SecureBootKeys) -> dict[str, bytes]:
    """Files for the EFI system partition: each key as a certificate (.CER) and as a signed change (.AUT), for a firmware's set-up."""
    files = {}
    for name, namespace, held, signer in keys.chain():
        value = signature_list(held.der(), keys.owner())
        files[f"EFI/TERRANE/{name.upper()}.CER"] = held.der()
        files[f"EFI/TERRANE/{name.upper()}.AUT"] = authenticated(name, namespace, value, signer)
    return files


def enrolled_variables(template: Path, out: Path, folder: Path = FOLDER) -> None:
    """Write a variable store of OVMF in which the keys are enrolled and Secure Boot is on. Raises PipelineError."""
    keys = load(folder)
    if keys is None:
        raise UsageError(
            "--secure-boot: expected keys in keys/secure-boot, found none; make them: build.py keys --secure-boot"
        )
    owner = str(keys.owner())
    command = [
        sys.executable,
        "-m",
        "virt.firmware.vars",
        "--input",
        str(template),
        "--output",
        str(out),
        "--secure-boot",
    ]
    for option, name in (("--set-pk", "PK"), ("--add-kek", "KEK"), ("--add-db", "db")):
        command += [option, owner, str(folder / f"{name}.crt")]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not out.exists():
        raise PipelineError(
            f"virt-fw-vars: expected a variable store with the keys, found: {done.stderr.strip()[-400:]}"
        )

"""Signatures as UEFI firmware checks them: PKCS #7 (RFC 2315) over a PE (Microsoft, Windows Authenticode Portable Executable Signature
Format) and over the content of a signature variable (UEFI 2.10, section 8.2.2).

Bit-identical: no time of signing, and RSA with PKCS #1 v1.5 padding gives the same signature for the same bytes.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from dsl.compiler import pe
from pipeline import der

SET: Final = 0x31
BIT_STRING: Final = 0x03
CERTIFICATE_DIRECTORY: Final = pe.DOS.size + pe.FILE.size + pe.OPTIONAL.size + 8 * 4  # the fifth data directory
PKCS_SIGNED_DATA: Final = 2  # wCertificateType
REVISION_2: Final = 0x0200


@dataclass(frozen=True)
class Signer:
    """An RSA key and its self-signed certificate."""

    key: RSAPrivateKey
    certificate: x509.Certificate

    def der(self) -> bytes:
        """The certificate's bytes."""
        return self.certificate.public_bytes(Encoding.DER)


def oid(text: str) -> bytes:
    """An OBJECT IDENTIFIER."""
    first, second, *rest = map(int, text.split("."))
    content = bytearray([40 * first + second])
    for arc in rest:
        groups = [arc >> shift & 0x7F for shift in range(0, max(arc.bit_length(), 1), 7)]
        content += bytes([group | 0x80 for group in reversed(groups[1:])] + groups[:1])
    return der.element(0x06, bytes(content))


def sequence(*parts: bytes) -> bytes:
    """A SEQUENCE."""
    return der.element(der.SEQUENCE, b"".join(parts))


NULL: Final = der.element(0x05, b"")
SHA256_ALGORITHM: Final = sequence(oid("2.16.840.1.101.3.4.2.1"), NULL)
RSA_ALGORITHM: Final = sequence(oid("1.2.840.113549.1.1.1"), NULL)
DATA: Final = oid("1.2.840.113549.1.7.1")
SIGNED_DATA: Final = oid("1.2.840.113549.1.7.2")
CONTENT_TYPE: Final = oid("1.2.840.113549.1.9.3")
MESSAGE_DIGEST: Final = oid("1.2.840.113549.1.9.4")
INDIRECT_DATA: Final = oid("1.3.6.1.4.1.311.2.1.4")
PE_IMAGE_DATA: Final = oid("1.3.6.1.4.1.311.2.1.15")
NO_FILE_NAME: Final = der.element(0xA0, der.element(0xA2, der.element(0x80, b"")))


def signed_data(signer: Signer, content: bytes, attributes: bytes, signed: bytes) -> bytes:
    """A SignedData. `content`: the inner ContentInfo; `attributes`: encoded, or empty; `signed`: the bytes under the signature."""
    certificate = signer.certificate
    name = sequence(certificate.issuer.public_bytes(), der.integer(certificate.serial_number))
    signature = der.element(der.OCTET_STRING, signer.key.sign(signed, PKCS1v15(), SHA256()))
    carried = der.element(0xA0, attributes) if attributes else b""
    info = sequence(der.integer(1), name, SHA256_ALGORITHM, carried, RSA_ALGORITHM, signature)
    certificates = der.element(0xA0, signer.der())
    return sequence(der.integer(1), der.element(SET, SHA256_ALGORITHM), content, certificates, der.element(SET, info))


def detached(signer: Signer, data: bytes) -> bytes:
    """A signature over `data`, which it does not carry: what an authenticated variable wants."""
    return signed_data(signer, sequence(DATA), b"", data)


def padded(file: bytes) -> bytes:
    """A file up to the multiple of eight bytes at which certificates begin."""
    return file + bytes(-len(file) % 8)


def image_digest(file: bytes) -> bytes:
    """The Authenticode SHA-256 of a PE: without its checksum, the directory's entry for certificates, and the certificates."""
    begin, size = struct.unpack_from("<II", file, CERTIFICATE_DIRECTORY)
    body = file[:begin] if size else padded(file)
    after_checksum, after_entry = pe.CHECKSUM_OFFSET + 4, CERTIFICATE_DIRECTORY + 8
    hashed = body[: pe.CHECKSUM_OFFSET] + body[after_checksum:CERTIFICATE_DIRECTORY] + body[after_entry:]
    return hashlib.sha256(hashed).digest()


def sign_image(file: bytes, signer: Signer) -> bytes:
    """One of our PE files with a certificate table, its checksum made anew."""
    out = bytearray(padded(file))
    digest = sequence(SHA256_ALGORITHM, der.element(der.OCTET_STRING, image_digest(bytes(out))))
    image_data = sequence(PE_IMAGE_DATA, sequence(der.element(BIT_STRING, b"\0"), NO_FILE_NAME))
    described = image_data + digest
    attributes = attribute(CONTENT_TYPE, INDIRECT_DATA) + attribute(
        MESSAGE_DIGEST, der.element(der.OCTET_STRING, hashlib.sha256(described).digest())
    )
    content = sequence(INDIRECT_DATA, der.element(0xA0, sequence(described)))
    inner = signed_data(signer, content, attributes, der.element(SET, attributes))
    whole = padded(sequence(SIGNED_DATA, der.element(0xA0, inner)))
    struct.pack_into("<II", out, CERTIFICATE_DIRECTORY, len(out), 8 + len(whole))
    out += struct.pack("<IHH", 8 + len(whole), REVISION_2, PKCS_SIGNED_DATA) + whole
    struct.pack_into("<I", out, pe.CHECKSUM_OFFSET, 0)
    struct.pack_into("<I", out, pe.CHECKSUM_OFFSET, pe.checksum(out))
    return bytes(out)


def attribute(name: bytes, value: bytes) -> bytes:
    """A signed attribute with one value."""
    return sequence(name, der.element(SET, value))

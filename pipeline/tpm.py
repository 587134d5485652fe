"""TPM 2.0 structures as far as provisioning and the verifier need them (TPM 2.0 Library 1.59, part 2; policies: part 3), big-endian.

Everything read here may come from a hostile machine: each length is checked before it is used.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from pipeline.errors import PipelineError

ALG_RSA, ALG_SHA256, ALG_NULL, ALG_RSASSA, ALG_ECDSA, ALG_ECC = 0x0001, 0x000B, 0x0010, 0x0014, 0x0018, 0x0023
CURVE_P256: Final = 0x0003
GENERATED_VALUE: Final = 0xFF544347
ATTEST_QUOTE: Final = 0x8018
FIXED_TPM, FIXED_PARENT, ORIGIN, RESTRICTED, DECRYPT, SIGN = 1 << 1, 1 << 4, 1 << 5, 1 << 16, 1 << 17, 1 << 18
AK_SET: Final = FIXED_TPM | FIXED_PARENT | ORIGIN | RESTRICTED | SIGN
CC_POLICY_NV, CC_POLICY_AUTHORIZE, CC_POLICY_PCR = 0x149, 0x16A, 0x17F
EO_UNSIGNED_LE: Final = 9

# Ours (docs/evidence.md)
COUNTER_INDEX, SECRET_INDEX, AK_HANDLE = 0x01805400, 0x01805401, 0x81005400
QUOTED_PCRS: Final = 0x00FFFF
LABEL: Final = b"terrane-chain-v1"

# TPMA_NV
NV_OWNERWRITE, NV_COUNTER, NV_OWNERREAD, NV_AUTHREAD, NV_POLICYREAD = 1 << 1, 1 << 4, 1 << 17, 1 << 18, 1 << 19
NV_NO_DA, NV_WRITTEN, NV_READ_STCLEAR = 1 << 25, 1 << 29, 1 << 31
COUNTER_ATTRIBUTES: Final = NV_OWNERWRITE | NV_COUNTER | NV_OWNERREAD | NV_AUTHREAD | NV_NO_DA
SECRET_ATTRIBUTES: Final = NV_OWNERWRITE | NV_POLICYREAD | NV_NO_DA | NV_READ_STCLEAR


class TpmError(PipelineError):
    """Bytes that are not the TPM structure that was expected."""


class Reader:
    """Takes big-endian fields off the front of some bytes; `what` names them in errors."""

    def __init__(self, data: bytes, what: str) -> None:
        """Begin at the first byte."""
        self.data, self.what, self.offset = data, what, 0

    def take(self, size: int) -> bytes:
        """The next bytes. Raises TpmError where there are fewer."""
        if len(self.data) - self.offset < size:
            left = len(self.data) - self.offset
            raise TpmError(f"{self.what}: expected {size} bytes at byte {self.offset}, found {left}")
        self.offset += size
        return self.data[self.offset - size : self.offset]

    def number(self, size: int) -> int:
        """The next number."""
        return int.from_bytes(self.take(size), "big")

    def sized(self) -> bytes:
        """The next TPM2B."""
        return self.take(self.number(2))

    def expect(self, size: int, name: str, *values: int) -> int:
        """The next number, which must be one of these."""
        found = self.number(size)
        if found not in values:
            wanted = " or ".join(f"{value:#x}" for value in values)
            raise TpmError(f"{self.what}: {name}: expected {wanted}, found {found:#x}")
        return found

    def end(self) -> None:
        """Nothing may be left."""
        if self.offset != len(self.data):
            raise TpmError(f"{self.what}: expected the end at byte {self.offset}, found {len(self.data)} bytes")


def sha256(*pieces: bytes) -> bytes:
    """SHA-256 of some pieces in a row."""
    return hashlib.sha256(b"".join(pieces)).digest()


def sized(data: bytes) -> bytes:
    """A TPM2B."""
    return struct.pack(">H", len(data)) + data


def name_of(public: bytes) -> bytes:
    """The Name of an object (TPMT_PUBLIC) or NV index (TPMS_NV_PUBLIC) whose name algorithm is SHA-256."""
    return struct.pack(">H", ALG_SHA256) + sha256(public)


@dataclass(frozen=True)
class SigningKey:
    """A public key out of a TPMT_PUBLIC."""

    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey
    attributes: int
    name: bytes

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether a TPMT_SIGNATURE with SHA-256 is this key's over a message. Raises TpmError for one that is none."""
        reader = Reader(signature, "TPM signature")
        scheme = ALG_ECDSA if isinstance(self.key, ec.EllipticCurvePublicKey) else ALG_RSASSA
        reader.expect(2, "scheme", scheme)
        reader.expect(2, "hash algorithm", ALG_SHA256)
        parts = [reader.sized() for _ in range(2 if scheme == ALG_ECDSA else 1)]
        reader.end()
        try:
            if isinstance(self.key, ec.EllipticCurvePublicKey):
                r, s = (int.from_bytes(part, "big") for part in parts)
                self.key.verify(encode_dss_signature(r, s), message, ec.ECDSA(SHA256()))
            else:
                self.key.verify(parts[0], message, padding.PKCS1v15(), SHA256())
        except InvalidSignature:
            return False
        return True


def parse_public(data: bytes) -> SigningKey:
    """A TPMT_PUBLIC of a P-256 or RSA-2048 signing key with a scheme of its own. Raises TpmError."""
    reader = Reader(data, "TPM public area")
    kind = reader.expect(2, "type", ALG_ECC, ALG_RSA)
    reader.expect(2, "name algorithm", ALG_SHA256)
    attributes = reader.number(4)
    reader.sized()  # authPolicy
    reader.expect(2, "symmetric algorithm", ALG_NULL)
    reader.expect(2, "scheme", ALG_ECDSA if kind == ALG_ECC else ALG_RSASSA)
    reader.expect(2, "scheme's hash", ALG_SHA256)
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey
    if kind == ALG_ECC:
        reader.expect(2, "curve", CURVE_P256)
        reader.expect(2, "key derivation", ALG_NULL)
        x, y = int.from_bytes(reader.sized(), "big"), int.from_bytes(reader.sized(), "big")
        try:
            key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
        except ValueError:
            raise TpmError("TPM public area: expected a point of P-256, found another") from None
    else:
        reader.expect(2, "key bits", 2048)
        exponent = reader.number(4) or 65537
        modulus = int.from_bytes(reader.sized(), "big")
        if modulus.bit_length() != 2048 or exponent != 65537:
            raise TpmError(f"TPM public area: expected RSA-2048 with exponent 65537, found {modulus.bit_length()} bits")
        key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    reader.end()
    return SigningKey(key, attributes, name_of(data))


@dataclass(frozen=True)
class Quote:
    """A TPMS_ATTEST of a quote over one bank, SHA-256. `clock` in milliseconds."""

    extra_data: bytes
    clock: int
    reset_count: int
    restart_count: int
    safe: bool
    firmware_version: int
    pcr_mask: int
    pcr_digest: bytes


def parse_quote(data: bytes) -> Quote:
    """Read a TPMS_ATTEST. Raises TpmError."""
    reader = Reader(data, "TPM quote")
    reader.expect(4, "magic", GENERATED_VALUE)
    reader.expect(2, "type", ATTEST_QUOTE)
    reader.sized()  # the signer's qualified name
    extra_data = reader.sized()
    clock, reset_count, restart_count = reader.number(8), reader.number(4), reader.number(4)
    safe = bool(reader.expect(1, "safe", 0, 1))
    firmware_version = reader.number(8)
    reader.expect(4, "number of selections", 1)
    reader.expect(2, "bank", ALG_SHA256)
    mask = int.from_bytes(reader.take(reader.number(1)), "little")
    digest = reader.sized()
    reader.end()
    return Quote(extra_data, clock, reset_count, restart_count, safe, firmware_version, mask, digest)


def qualifying_data(device_key: bytes, monitor_key: bytes) -> bytes:
    """What binds a quote to this boot's chain."""
    return sha256(LABEL, device_key, monitor_key)


def pcr_digest(values: dict[int, bytes], mask: int) -> bytes:
    """The digest that a quote has of the selected PCRs."""
    return sha256(*(values[index] for index in range(24) if mask >> index & 1))


def nv_public(index: int, attributes: int, policy: bytes, size: int) -> bytes:
    """A TPMS_NV_PUBLIC with SHA-256 names."""
    return struct.pack(">IHI", index, ALG_SHA256, attributes) + sized(policy) + struct.pack(">H", size)


def counter_name() -> bytes:
    """The Name of the floor counter once it was incremented."""
    return name_of(nv_public(COUNTER_INDEX, COUNTER_ATTRIBUTES | NV_WRITTEN, b"", 8))


def policy_key_public(key: ec.EllipticCurvePublicKey) -> bytes:
    """The policy key's TPMT_PUBLIC, as docs/evidence.md fixes it: 88 bytes."""
    numbers = key.public_numbers()
    head = bytes.fromhex("0023 000b 00040040 0000 0010 0018 000b 0003 0010")
    return head + sized(numbers.x.to_bytes(32, "big")) + sized(numbers.y.to_bytes(32, "big"))


def authorize_policy(key: ec.EllipticCurvePublicKey) -> bytes:
    """The authPolicy PolicyAuthorize(key, empty reference)."""
    first = sha256(bytes(32), struct.pack(">I", CC_POLICY_AUTHORIZE), name_of(policy_key_public(key)))
    return sha256(first)


def approved_policy(mask: int, values: dict[int, bytes], highest_counter: int) -> bytes:
    """The digest of PolicyPCR over these values of the SHA-256 bank, then PolicyNV(floor counter <= highest_counter)."""
    selection = struct.pack(">IHB", 1, ALG_SHA256, 3) + mask.to_bytes(3, "little")
    after_pcr = sha256(bytes(32), struct.pack(">I", CC_POLICY_PCR), selection, pcr_digest(values, mask))
    arguments = sha256(struct.pack(">QHH", highest_counter, 0, EO_UNSIGNED_LE))
    return sha256(after_pcr, struct.pack(">I", CC_POLICY_NV), arguments, counter_name())

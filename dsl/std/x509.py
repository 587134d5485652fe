"""Certificates (RFC 5280) from fixed templates: docs/formats.md, "DICE", says what each byte is.

Templates are built by ordinary Python when the module loads. Machine code copies one, writes fields at fixed offsets, and
signs: it encodes no DER and decides no length. Names and key stand at the same offsets in every kind, which the last lines
of the template part check.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import Array, Secret, Struct, array, machine, table, u8, u64, upto
from dsl.std.der import (
    BIT_STRING,
    ENUMERATED,
    GENERALIZED_TIME,
    INTEGER,
    OCTET_STRING,
    PRINTABLE_STRING,
    SEQUENCE,
    SET,
    UTC_TIME,
    Encoded,
    element,
    explicit,
    extension,
    hole,
    object_identifier,
)
from dsl.std.ed25519 import ed25519_sign

IDENTIFIER_SIZE: Final = 20
IDENTIFIER_TEXT_SIZE: Final = 40
HASH_SIZE: Final = 64
CONFIGURATION_SIZE: Final = 68
NONCE_SIZE: Final = 32
CERTIFICATE_LIMIT: Final = 1024  # the room that every holder of a certificate gives it

DICE_EXTENSION: Final = "1.3.6.1.4.1.11129.2.1.24"
ENDORSEMENT_EXTENSION: Final = "2.25.329800735698586629295641978511506172918"
KEY_CERT_SIGN: Final = bytes([BIT_STRING, 2, 2, 0x04])
DIGITAL_SIGNATURE: Final = bytes([BIT_STRING, 2, 7, 0x80])
IS_AUTHORITY: Final = bytes([SEQUENCE, 3, 1, 1, 0xFF])
IS_NO_AUTHORITY: Final = bytes([SEQUENCE, 0])


# The templates


def name(field: str) -> Encoded:
    """A distinguished name of one attribute: serialNumber, 40 hex digits."""
    text = element(PRINTABLE_STRING, hole(field, IDENTIFIER_TEXT_SIZE))
    return element(SEQUENCE, element(SET, element(SEQUENCE, object_identifier("2.5.4.5"), text)))


def certificate_template(usage: bytes, authority: bytes, *extensions: Encoded) -> Encoded:
    """A whole certificate with holes; the signature's is the last."""
    algorithm = element(SEQUENCE, object_identifier("1.3.101.112"))
    own = (
        extension(
            "2.5.29.35", element(SEQUENCE, element(0x80, hole("issuer identifier", IDENTIFIER_SIZE))), critical=False
        ),
        extension("2.5.29.14", element(OCTET_STRING, hole("subject identifier", IDENTIFIER_SIZE)), critical=False),
        extension("2.5.29.15", Encoded(usage), critical=True),
        extension("2.5.29.19", Encoded(authority), critical=True),
    )
    to_be_signed = element(
        SEQUENCE,
        explicit(0, element(INTEGER, b"\x02")),
        element(INTEGER, hole("serial", IDENTIFIER_SIZE)),
        algorithm,
        name("issuer name"),
        element(SEQUENCE, element(UTC_TIME, b"180322235959Z"), element(GENERALIZED_TIME, b"99991231235959Z")),
        name("subject name"),
        element(SEQUENCE, algorithm, element(BIT_STRING, b"\x00", hole("public key", 32))),
        explicit(3, element(SEQUENCE, *own, *extensions)),
    )
    return element(SEQUENCE, to_be_signed, algorithm, element(BIT_STRING, b"\x00", hole("signature", 64)))


def dice_extension() -> Encoded:
    """The inputs of a layer's derivation (Open DICE v2.6, X.509 profile)."""
    value = element(
        SEQUENCE,
        explicit(0, element(OCTET_STRING, hole("code", HASH_SIZE))),
        explicit(2, element(OCTET_STRING, hole("configuration", HASH_SIZE))),
        explicit(3, element(OCTET_STRING, hole("descriptor", CONFIGURATION_SIZE))),
        explicit(4, element(OCTET_STRING, hole("authority", HASH_SIZE))),
        explicit(6, element(ENUMERATED, hole("mode", 1))),
    )
    return extension(DICE_EXTENSION, value, critical=True)


def endorsement_extension() -> Encoded:
    """What a box's caller wants said: a nonce and the hash of data."""
    value = element(OCTET_STRING, hole("nonce", NONCE_SIZE), hole("data hash", HASH_SIZE))
    return extension(ENDORSEMENT_EXTENSION, value, critical=True)


DEVICE: Final = certificate_template(KEY_CERT_SIGN, IS_AUTHORITY)
LAYER: Final = certificate_template(KEY_CERT_SIGN, IS_AUTHORITY, dice_extension())
ENDORSEMENT: Final = certificate_template(DIGITAL_SIGNATURE, IS_NO_AUTHORITY, endorsement_extension())

DEVICE_TEMPLATE: Final = table(u8, DEVICE.content)
LAYER_TEMPLATE: Final = table(u8, LAYER.content)
ENDORSEMENT_TEMPLATE: Final = table(u8, ENDORSEMENT.content)

SERIAL: Final = DEVICE.offset("serial", IDENTIFIER_SIZE)
ISSUER_NAME: Final = DEVICE.offset("issuer name", IDENTIFIER_TEXT_SIZE)
SUBJECT_NAME: Final = DEVICE.offset("subject name", IDENTIFIER_TEXT_SIZE)
PUBLIC_KEY: Final = DEVICE.offset("public key", 32)
SUBJECT_AFTER_ISSUER: Final = IDENTIFIER_SIZE + 11  # from one key identifier extension's hole to the next one's
DEVICE_IDENTIFIERS: Final = DEVICE.offset(
    "issuer identifier", IDENTIFIER_SIZE
)  # these stand behind lengths that differ
LAYER_IDENTIFIERS: Final = LAYER.offset("issuer identifier", IDENTIFIER_SIZE)
ENDORSEMENT_IDENTIFIERS: Final = ENDORSEMENT.offset("issuer identifier", IDENTIFIER_SIZE)
LAYER_CODE: Final = LAYER.offset("code", HASH_SIZE)
LAYER_CONFIGURATION: Final = LAYER.offset("configuration", HASH_SIZE)
LAYER_DESCRIPTOR: Final = LAYER.offset("descriptor", CONFIGURATION_SIZE)
LAYER_AUTHORITY: Final = LAYER.offset("authority", HASH_SIZE)
LAYER_MODE: Final = LAYER.offset("mode", 1)
ENDORSEMENT_NONCE: Final = ENDORSEMENT.offset("nonce", NONCE_SIZE)
ENDORSEMENT_DATA_HASH: Final = ENDORSEMENT.offset("data hash", HASH_SIZE)

HEADER_SIZE: Final = 4  # of the outer SEQUENCE: 30 82 and two bytes
TRAILER_SIZE: Final = 7 + 3 + 64  # signature algorithm, BIT STRING header, signature
for template in (DEVICE, LAYER, ENDORSEMENT):
    distance = template.offset("subject identifier", IDENTIFIER_SIZE) - template.offset(
        "issuer identifier", IDENTIFIER_SIZE
    )
    if template.holes[:4] != DEVICE.holes[:4] or distance != SUBJECT_AFTER_ISSUER:
        raise ValueError("certificate templates: fields moved")
    if len(template.content) > CERTIFICATE_LIMIT:
        raise ValueError(
            f"certificate template: expected at most {CERTIFICATE_LIMIT} bytes, found {len(template.content)}"
        )
    if template.content[1] != 0x82 or template.content[HEADER_SIZE + 1] != 0x82:
        raise ValueError("certificate templates: expected lengths of two bytes")

HEX_DIGITS: Final = table(u8, b"0123456789abcdef")


# Filling them in


class KeyPair(Struct, size=84):
    """A layer's key: the seed stays with its owner, the rest is public. identifier stands for the key in certificates."""

    seed: Array[Secret[u8]] = array(32)
    public_key: Array[u8] = array(32)
    identifier: Array[u8] = array(IDENTIFIER_SIZE)


@machine
def write_hex(out: Array[u8], data: Array[u8]) -> None:
    """Write an identifier, or less, as lower-case hex digits."""
    for index in upto(data.length, at_most=IDENTIFIER_SIZE):
        out[index * 2] = HEX_DIGITS[data[index] >> 4]
        out[index * 2 + 1] = HEX_DIGITS[data[index] & 15]


@machine
def fill_names(
    certificate: Array[u8], identifiers: u64, issuer: Array[u8], subject: Array[u8], public_key: Array[u8]
) -> None:
    """Write both identifiers wherever they stand, and the subject's key; identifiers is the kind's ..._IDENTIFIERS."""
    certificate.slice(SERIAL, IDENTIFIER_SIZE).copy_from(subject)
    write_hex(certificate.slice(ISSUER_NAME, IDENTIFIER_TEXT_SIZE), issuer)
    write_hex(certificate.slice(SUBJECT_NAME, IDENTIFIER_TEXT_SIZE), subject)
    certificate.slice(PUBLIC_KEY, 32).copy_from(public_key)
    certificate.slice(identifiers, IDENTIFIER_SIZE).copy_from(issuer)
    certificate.slice(identifiers + SUBJECT_AFTER_ISSUER, IDENTIFIER_SIZE).copy_from(subject)


@machine
def sign_certificate(certificate: Array[u8], issuer: KeyPair) -> None:
    """Write the issuer's signature over everything between the outer header and the trailer."""
    signed = certificate.slice(HEADER_SIZE, certificate.length - HEADER_SIZE - TRAILER_SIZE)
    signature = certificate.slice(certificate.length - 64, u64(64))
    ed25519_sign(signature, signed, issuer.seed, issuer.public_key)

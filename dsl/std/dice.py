"""Open Profile for DICE v2.6: derivation of a layer's secrets and key, and the certificates of the chain (docs/formats.md, "DICE").

The chain: device secret -> device key (self-signed) -> monitor -> box -> endorsement. A layer's secrets come from its
parent's and from what is loaded (code, configuration, authority, mode), so different code gets different keys.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import (
    Array,
    Secret,
    Struct,
    address_of,
    array,
    array_at,
    as_secret,
    frame_array,
    machine,
    size_of,
    table,
    text,
    u8,
    u64,
)
from dsl.std.ed25519 import ed25519_public_key
from dsl.std.hkdf import hkdf
from dsl.std.sha512 import sha512
from dsl.std.wipe import WIPED_SIZE
from dsl.std.x509 import (
    CONFIGURATION_SIZE,
    DEVICE_IDENTIFIERS,
    DEVICE_TEMPLATE,
    ENDORSEMENT_DATA_HASH,
    ENDORSEMENT_IDENTIFIERS,
    ENDORSEMENT_NONCE,
    ENDORSEMENT_TEMPLATE,
    HASH_SIZE,
    IDENTIFIER_SIZE,
    LAYER_AUTHORITY,
    LAYER_CODE,
    LAYER_CONFIGURATION,
    LAYER_DESCRIPTOR,
    LAYER_IDENTIFIERS,
    LAYER_MODE,
    LAYER_TEMPLATE,
    NONCE_SIZE,
    KeyPair,
    fill_names,
    sign_certificate,
)

CDI_SIZE: Final = 32
NAME_SIZE: Final = 32
MODE_NOT_CONFIGURED: Final = u8(0)
MODE_NORMAL: Final = u8(1)
MODE_DEBUG: Final = u8(2)
MODE_RECOVERY: Final = u8(3)
POSTURE_DEBUG: Final = u64(1 << 0)
POSTURE_TPM: Final = u64(1 << 1)
POSTURE_IOMMU: Final = u64(1 << 2)
POSTURE_DEVELOPMENT_SECRET: Final = u64(1 << 3)

KEY_SALT: Final = table(
    u8,
    bytes.fromhex(
        "63b6a04d2c077fc10f639f21da793844356cc2b0b441b3a77124035c03f8e1be"
        "6035d31f282821a7450a02222ab1b3cff1679b05ab1ca5d1affb789ccd2b0b3b"
    ),
)
IDENTIFIER_SALT: Final = table(
    u8,
    bytes.fromhex(
        "dbdbaebc8020da9ff0dd5a24c83aa5a54286dfc263031e329b4da148430659fe"
        "62cdb5b7e1e00fc680306711eb444af77209359496fcff1db9520ba51c7b29ea"
    ),
)

# The configuration descriptor: a CBOR map of -70002 (name), -70005 (security version), -72000 (posture).
NAME_OFFSET: Final = 8
VERSION_OFFSET: Final = 46
POSTURE_OFFSET: Final = 60
CONFIGURATION_TEMPLATE: Final = table(
    u8,
    b"".join(
        (
            bytes.fromhex("a3 3a00011171 7820") + bytes(NAME_SIZE),
            bytes.fromhex("3a00011174 1b") + bytes(8),
            bytes.fromhex("3a0001193f 1b") + bytes(8),
        )
    ),
)


class Cdi(Struct, size=64):
    """A layer's two compound device identifiers: one for its key, one for what it seals."""

    attest: Array[Secret[u8]] = array(CDI_SIZE)
    seal: Array[Secret[u8]] = array(CDI_SIZE)


class LayerInputs(Struct, size=257):
    """What a layer is, in the order in which Open DICE hashes it."""

    code: Array[u8] = array(HASH_SIZE)
    configuration: Array[u8] = array(HASH_SIZE)
    authority: Array[u8] = array(HASH_SIZE)
    mode: u8
    hidden: Array[u8] = array(HASH_SIZE)


AUTHORITY_OFFSET: Final = 128  # of `authority` in LayerInputs: from there on is what CDI_Seal depends on


@machine
def write_configuration(descriptor: Array[u8], name: Array[u8], security_version: u64, posture: u64) -> None:
    """Write the 68-byte configuration descriptor; name has at most 32 bytes."""
    descriptor.copy_from(CONFIGURATION_TEMPLATE)
    descriptor.slice(NAME_OFFSET, name.length).copy_from(name)
    descriptor.store_be64(VERSION_OFFSET, security_version)
    descriptor.store_be64(POSTURE_OFFSET, posture)


@machine
def set_layer_inputs(
    inputs: LayerInputs, row: Array[u8], descriptor: Array[u8], authority_key: Array[u8], mode: u8
) -> None:
    """Hash the signed entry row, the configuration descriptor and the authority's public key into inputs; hidden is zero."""
    sha512(as_secret(inputs.code), as_secret(row))
    sha512(as_secret(inputs.configuration), as_secret(descriptor))
    sha512(as_secret(inputs.authority), as_secret(authority_key))
    inputs.mode = mode
    inputs.hidden.fill(u8(0))


@machine(wipes=WIPED_SIZE)
def derive_layer(child: Cdi, parent: Cdi, inputs: LayerInputs) -> None:
    """Set child to the layer's CDIs, from its parent's and its inputs."""
    # Safe because a LayerInputs is exactly these bytes, without padding: its size says so.
    measured = array_at(u8, address_of(inputs), u64(size_of(LayerInputs)))
    digest = frame_array(Secret[u8], HASH_SIZE)
    sha512(digest, as_secret(measured))
    hkdf(child.attest, parent.attest, digest, as_secret(text("CDI_Attest")))
    sha512(digest, as_secret(measured.slice(AUTHORITY_OFFSET, measured.length - AUTHORITY_OFFSET)))
    hkdf(child.seal, parent.seal, digest, as_secret(text("CDI_Seal")))


@machine
def derive_identifier(identifier: Array[u8], public_key: Array[u8]) -> None:
    """Write the 20-byte identifier of a key: a positive DER integer of constant length."""
    hkdf(as_secret(identifier), as_secret(public_key), as_secret(IDENTIFIER_SALT), as_secret(text("ID")))
    first = identifier[0] & 0x7F
    identifier[0] = first | u8(first == 0)


@machine(wipes=WIPED_SIZE)
def derive_key_pair(pair: KeyPair, secret_input: Array[Secret[u8]]) -> None:
    """Set pair to the key of a CDI_Attest, or of a device secret."""
    hkdf(pair.seed, secret_input, as_secret(KEY_SALT), as_secret(text("Key Pair")))
    ed25519_public_key(pair.public_key, pair.seed)
    derive_identifier(pair.identifier, pair.public_key)


@machine
def write_device_certificate(out: Array[u8], device: KeyPair) -> u64:
    """Write the device key's own, self-signed certificate; its size is the result. out holds at least that much."""
    certificate = out.slice(0, DEVICE_TEMPLATE.length)
    certificate.copy_from(DEVICE_TEMPLATE)
    fill_names(certificate, u64(DEVICE_IDENTIFIERS), device.identifier, device.identifier, device.public_key)
    sign_certificate(certificate, device)
    return certificate.length


@machine
def write_layer_certificate(
    out: Array[u8], issuer: KeyPair, subject: KeyPair, inputs: LayerInputs, descriptor: Array[u8]
) -> u64:
    """Write a layer's certificate, signed by its parent's key; its size is the result. Of subject the public part is read."""
    certificate = out.slice(0, LAYER_TEMPLATE.length)
    certificate.copy_from(LAYER_TEMPLATE)
    fill_names(certificate, u64(LAYER_IDENTIFIERS), issuer.identifier, subject.identifier, subject.public_key)
    certificate.slice(LAYER_CODE, HASH_SIZE).copy_from(inputs.code)
    certificate.slice(LAYER_CONFIGURATION, HASH_SIZE).copy_from(inputs.configuration)
    certificate.slice(LAYER_DESCRIPTOR, CONFIGURATION_SIZE).copy_from(descriptor)
    certificate.slice(LAYER_AUTHORITY, HASH_SIZE).copy_from(inputs.authority)
    certificate[LAYER_MODE] = inputs.mode
    sign_certificate(certificate, issuer)
    return certificate.length


@machine
def write_endorsement(out: Array[u8], issuer: KeyPair, public_key: Array[u8], nonce: Array[u8], data: Array[u8]) -> u64:
    """Write an endorsement of a caller's key, its 32-byte nonce and its data, signed by its box's key; its size is the result."""
    certificate = out.slice(0, ENDORSEMENT_TEMPLATE.length)
    certificate.copy_from(ENDORSEMENT_TEMPLATE)
    identifier = frame_array(u8, IDENTIFIER_SIZE)
    derive_identifier(identifier, public_key)
    fill_names(certificate, u64(ENDORSEMENT_IDENTIFIERS), issuer.identifier, identifier, public_key)
    certificate.slice(ENDORSEMENT_NONCE, NONCE_SIZE).copy_from(nonce)
    sha512(as_secret(certificate.slice(ENDORSEMENT_DATA_HASH, HASH_SIZE)), as_secret(data))
    sign_certificate(certificate, issuer)
    return certificate.length

"""The chain that machine code derives and certifies is the one that an independent implementation expects (pipeline/chain.py)."""

from __future__ import annotations

import hashlib
import shutil
import ssl
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from dsl.lang import size_of
from dsl.std import dice
from dsl.std.x509 import CERTIFICATE_LIMIT, DICE_EXTENSION, ENDORSEMENT_EXTENSION, KeyPair
from pipeline import chain
from tests.worlds import CPython, Native, Unicorn, World

SECRET: Final = bytes(range(32))
HEADER_KEY: Final = hashlib.sha256(b"header key").digest()
MONITOR_ROW: Final = hashlib.sha512(b"monitor row").digest()
BOX_ROW: Final = hashlib.sha512(b"box row").digest()
NONCE: Final = hashlib.sha256(b"nonce").digest()
POSTURE: Final = chain.POSTURE_DEBUG | chain.POSTURE_DEVELOPMENT_SECRET
CALLER: Final = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"caller").digest())
DATA: Final = b"what the caller wants endorsed"

CPYTHON: Final = CPython()
NATIVE: Final = Native()
UNICORN: Final = Unicorn()
worlds: Final = pytest.mark.parametrize(
    "world",
    [
        pytest.param(CPYTHON, marks=pytest.mark.t0, id="cpython"),
        pytest.param(NATIVE, marks=pytest.mark.t1, id="native"),
        pytest.param(UNICORN, marks=pytest.mark.t1, id="unicorn"),
    ],
)


@dataclass(frozen=True)
class Key:
    """A KeyPair as bytes."""

    content: bytes

    @property
    def public(self) -> bytes:
        """The public key."""
        return self.content[32:64]

    @property
    def identifier(self) -> bytes:
        """The identifier."""
        return self.content[64:]


def key_pair(world: World, secret: bytes) -> Key:
    """The key pair of a CDI or device secret."""
    out = bytearray(size_of(KeyPair))
    world.call(dice.derive_key_pair, out, secret)
    return Key(bytes(out))


def configuration(world: World, name: bytes, version: int) -> bytes:
    """A configuration descriptor."""
    out = bytearray(68)
    world.call(dice.write_configuration, out, name, version, POSTURE)
    return bytes(out)


def layer(world: World, parent: bytes, row: bytes, descriptor: bytes) -> tuple[bytes, bytes]:
    """The CDIs of a layer, and its inputs."""
    inputs, cdi = bytearray(size_of(dice.LayerInputs)), bytearray(64)
    world.call(dice.set_layer_inputs, inputs, row, descriptor, HEADER_KEY, chain.MODE_DEBUG)
    world.call(dice.derive_layer, cdi, parent, bytes(inputs))
    return bytes(cdi), bytes(inputs)


@dataclass(frozen=True)
class Built:
    """What one run makes."""

    device: Key
    monitor: Key
    box: Key
    certificates: list[bytes]  # device, monitor, box, endorsement


@cache
def build(world: World) -> Built:
    """Make the whole chain, once in each world."""

    def written(size: int) -> bytes:
        assert 0 < size <= CERTIFICATE_LIMIT
        assert not any(out[size:]), "nothing is written behind the certificate"
        return bytes(out[:size])

    device = key_pair(world, SECRET)
    out = bytearray(CERTIFICATE_LIMIT)
    certificates = [written(world.call(dice.write_device_certificate, out, device.content))]
    signer, parent, keys = device, SECRET + SECRET, []
    for name, row, version in ((b"terrane monitor", MONITOR_ROW, 3), (b"witness", BOX_ROW, 4)):
        descriptor = configuration(world, name, version)
        parent, inputs = layer(world, parent, row, descriptor)
        keys.append(key_pair(world, parent[:32]))
        out = bytearray(CERTIFICATE_LIMIT)
        arguments = (signer.content, keys[-1].content, inputs, descriptor)
        certificates.append(written(world.call(dice.write_layer_certificate, out, *arguments)))
        signer = keys[-1]
    out = bytearray(CERTIFICATE_LIMIT)
    public = CALLER.public_key().public_bytes_raw()
    certificates.append(written(world.call(dice.write_endorsement, out, signer.content, public, NONCE, DATA)))
    return Built(device, keys[0], keys[1], certificates)


@worlds
def test_all_zero_values(world: World) -> None:
    """The published golden values of Open DICE for all-zero inputs."""
    cdi = bytearray(64)
    world.call(dice.derive_layer, cdi, bytes(64), bytes(size_of(dice.LayerInputs)))
    assert cdi[:32].hex() == "fbfc679771342eeacb908659ce49d6b63b4535da2c51433d7f04efa6319e0c19"
    assert cdi[32:].hex() == "8ff8b22571325e7defefbfea8df1c9f34bf4d9ee03b75b788219c6b1ef49bdc5"
    assert key_pair(world, bytes(32)).identifier.hex() == "7a06eee41b789f4863d86b8778b1a201a6fedd56"
    assert key_pair(world, bytes(cdi[:32])).identifier.hex() == "67c22a8859062b986818e8e72b0bcd9f59349c89"


@worlds
def test_chain_is_the_expected_one(world: World) -> None:
    """Keys, identifiers and configuration of every layer equal those that the host computes."""
    built = build(world)
    rows = [(chain.MONITOR_NAME, MONITOR_ROW, 3), ("witness", BOX_ROW, 4)]
    expected = chain.expected_chain(SECRET, HEADER_KEY, chain.MODE_DEBUG, POSTURE, rows)
    found = [built.device, built.monitor, built.box]
    assert [key.public for key in found] == [expected_layer.public_key for expected_layer in expected]
    assert [key.identifier.hex() for key in found] == [expected_layer.identifier for expected_layer in expected]
    for certificate, expected_layer in zip(built.certificates[1:3], expected[1:], strict=True):
        value = extension_of(certificate, DICE_EXTENSION)
        authority = bytes.fromhex("a4420440") + hashlib.sha512(HEADER_KEY).digest()
        assert value == dice_value(expected_layer.row, expected_layer.configuration, authority)


def dice_value(row: bytes, descriptor: bytes, authority: bytes) -> bytes:
    """The DICE extension as docs/formats.md spells it, by hand."""
    code = bytes.fromhex("a0420440") + hashlib.sha512(row).digest()
    hashed = bytes.fromhex("a2420440") + hashlib.sha512(descriptor).digest()
    described = bytes.fromhex("a3460444") + descriptor
    inside = code + hashed + described + authority + bytes.fromhex("a6030a0102")
    return bytes.fromhex("308201") + bytes([len(inside) - 256]) + inside


def extension_of(certificate: bytes, oid: str) -> bytes:
    """The value of a critical extension that the library does not know."""
    parsed = x509.load_der_x509_certificate(certificate)
    found = parsed.extensions.get_extension_for_oid(x509.ObjectIdentifier(oid))
    assert found.critical
    assert isinstance(found.value, x509.UnrecognizedExtension)
    return found.value.value


@worlds
def test_certificates_are_signed_down_the_chain(world: World) -> None:
    """Each certificate parses strictly, is verified by its issuer's key, and names issuer and subject."""
    certificates = [x509.load_der_x509_certificate(der) for der in build(world).certificates]
    for issuer, subject in zip([certificates[0], *certificates[:-1]], certificates, strict=True):
        key = issuer.public_key()
        assert isinstance(key, Ed25519PublicKey)
        key.verify(subject.signature, subject.tbs_certificate_bytes)
        assert subject.issuer == issuer.subject
        assert subject.serial_number.to_bytes(20, "big").hex() in subject.subject.rfc4514_string()
        assert subject.version is x509.Version.v3
    authorities = [c.extensions.get_extension_for_class(x509.BasicConstraints).value.ca for c in certificates]
    assert authorities == [True, True, True, False]
    usages = [c.extensions.get_extension_for_class(x509.KeyUsage).value for c in certificates]
    assert [usage.key_cert_sign for usage in usages] == [True, True, True, False]
    assert [usage.digital_signature for usage in usages] == [False, False, False, True]


@worlds
def test_signatures_are_those_of_the_standard(world: World) -> None:
    """Each is the one that RFC 8032 makes of key and content: any other would verify too, but its nonce may give the key away."""
    built = build(world)
    signers = [built.device, built.device, built.monitor, built.box]
    for signer, der in zip(signers, built.certificates, strict=True):
        certificate = x509.load_der_x509_certificate(der)
        private = Ed25519PrivateKey.from_private_bytes(signer.content[:32])
        assert certificate.signature == private.sign(certificate.tbs_certificate_bytes)


@pytest.mark.t1
@pytest.mark.parametrize("number", range(8))
def test_signatures_of_other_keys_are_those_of_the_standard(number: int) -> None:
    """The same for keys of many shapes, by all who sign."""
    issuer = key_pair(NATIVE, hashlib.sha256(bytes([number])).digest())
    private = Ed25519PrivateKey.from_private_bytes(issuer.content[:32])
    descriptor, (_, inputs) = (
        configuration(NATIVE, b"other", number),
        layer(NATIVE, SECRET + SECRET, BOX_ROW, bytes(68)),
    )
    made = [bytearray(CERTIFICATE_LIMIT) for _ in range(3)]
    sizes = [
        NATIVE.call(dice.write_device_certificate, made[0], issuer.content),
        NATIVE.call(dice.write_layer_certificate, made[1], issuer.content, issuer.content, inputs, descriptor),
        NATIVE.call(dice.write_endorsement, made[2], issuer.content, bytes([number]) * 32, NONCE, DATA),
    ]
    for out, size in zip(made, sizes, strict=True):
        certificate = x509.load_der_x509_certificate(bytes(out[:size]))
        assert certificate.signature == private.sign(certificate.tbs_certificate_bytes)


@worlds
def test_endorsement_holds_nonce_and_data(world: World) -> None:
    """The leaf carries the caller's key, and the nonce and the hash of the data in its extension."""
    leaf = build(world).certificates[3]
    assert extension_of(leaf, ENDORSEMENT_EXTENSION) == b"\x04\x60" + NONCE + hashlib.sha512(DATA).digest()
    assert x509.load_der_x509_certificate(leaf).public_key() == CALLER.public_key()


@pytest.mark.t1
def test_both_worlds_write_the_same_bytes() -> None:
    """CPython, the processor and Unicorn agree on every byte of every certificate."""
    expected = build(CPYTHON).certificates
    assert build(NATIVE).certificates == expected
    assert build(UNICORN).certificates == expected


@worlds
def test_openssl_accepts(world: World, tmp_path: Path) -> None:
    """`openssl verify -ignore_critical -x509_strict` takes the chain, and refuses a leaf with a flipped bit."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    names = []
    certificates = build(world).certificates
    broken = certificates[3][:-1] + bytes([certificates[3][-1] ^ 1])
    for index, der in enumerate([*certificates, broken]):
        names.append(tmp_path / f"{index}.pem")
        names[-1].write_text(ssl.DER_cert_to_PEM_cert(der))
    device, monitor, box, leaf, wrong = map(str, names)
    command = [openssl, "verify", "-ignore_critical", "-x509_strict", "-CAfile", device, "-untrusted", monitor]
    command += ["-untrusted", box]
    good = subprocess.run([*command, leaf], capture_output=True, text=True, check=False)
    assert (good.returncode, good.stdout.strip()) == (0, f"{leaf}: OK"), good.stderr
    assert subprocess.run([*command, wrong], capture_output=True, check=False).returncode != 0


@pytest.mark.t0
def test_identifier_never_begins_with_zero() -> None:
    """A key whose identifier would begin with a zero byte gets 1 there: serial numbers keep their length."""
    keys = (hashlib.sha256(bytes([number & 255, number >> 8])).digest() for number in range(4096))
    found = next(key for key in keys if chain.open_dice_identifier(key)[0] == 0)
    out = bytearray(20)
    CPython().call(dice.derive_identifier, out, found)
    assert bytes(out) == b"\x01" + chain.open_dice_identifier(found)[1:] == chain.identifier(found)


@pytest.mark.t1
def test_stack_of_the_monitors_work() -> None:
    """ENDORSE and the derivation of a box stay within half of a 16 KiB stack."""
    device, inputs, public = bytes(size_of(KeyPair)), bytes(size_of(dice.LayerInputs)), bytes(32)
    calls: list[tuple[Any, ...]] = [
        (dice.write_endorsement, bytearray(1024), device, public, NONCE, bytes(256)),
        (dice.write_layer_certificate, bytearray(1024), device, device, inputs, bytes(68)),
        (dice.derive_layer, bytearray(64), bytes(64), inputs),
        (dice.derive_key_pair, bytearray(size_of(KeyPair)), bytes(32)),
    ]
    for function, *arguments in calls:
        engine = Unicorn()
        engine.call(function, *arguments)
        used = engine.stack.lstrip(b"\xcc")
        assert 0 < len(used) < 8192, function.__name__

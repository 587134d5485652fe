"""Our cryptography beside OpenSSL's and libsodium's, natively, in one run: medians of rounds in which everyone has a turn, in processor
time of the thread, since the machine is shared.

OpenSSL comes twice: the one that the `cryptography` wheel carries, which is new, through Python, and the system's libcrypto through
ctypes, as ours and libsodium. The anchor is the faster of the two. All of these calls cost a microsecond or less.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import mmap
import statistics
import time
from collections.abc import Callable
from ctypes.util import find_library
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import OK, PipelineError
from pipeline.progress import say

ROUNDS = 101
TURN_NS = 1_000_000  # how long one should take
BULK = 1 << 20
MESSAGE = bytes(range(64))
OURS, SODIUM = "ours", "libsodium"
Call = Callable[[], object]


class CryptoBenchError(PipelineError):
    """A library that is missing, or a result that is not the one expected."""


@dataclass
class Subject:
    """One thing to measure: who can do it, how many bytes it takes (0: it is an operation), and what ours has to give."""

    name: str
    size: int
    calls: dict[str, Call] = field(default_factory=dict)
    check: Callable[[], bool] = lambda: True
    times: dict[str, list[float]] = field(default_factory=dict)  # of one call, in ns, round by round

    def median(self, who: str) -> float:
        """The typical time of one call, in ns."""
        return statistics.median(self.times[who])


class Native:
    """One of our functions in executable memory. Arguments: int, bytes to read, or a ctypes buffer to write."""

    def __init__(self, function: Callable[..., Any]) -> None:
        from dsl.compiler.pipeline import compile_function

        program = compile_function(function)
        self.memory = mmap.mmap(-1, program.memory_size, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self.memory.write(program.image)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.entry = start + program.symbols[program.entry][0] - program.base

    def bind(self, *arguments: Any) -> Call:
        """A call with these arguments, arrays as address and length."""
        values: list[int] = []
        kept: list[Any] = [self.memory]
        for argument in arguments:
            if isinstance(argument, int):
                values.append(argument)
                continue
            buffer = room(len(argument), argument) if isinstance(argument, bytes) else argument
            kept.append(buffer)
            values += [ctypes.addressof(buffer), len(buffer)]
        call = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * len(values))(self.entry)
        words = [ctypes.c_uint64(value) for value in values]
        return lambda kept=kept: call(*words)  # type: ignore[misc]


def room(size: int, content: bytes = b"") -> Any:
    """A buffer for results."""
    return ctypes.create_string_buffer(content, size)


def library(name: str, package: str) -> Any:
    """A shared library of the system. Raises CryptoBenchError naming the package that has it."""
    found = find_library(name)
    if found is None:
        raise CryptoBenchError(
            f"lib{name}: expected the library to compare with, found none (Debian package {package})"
        )
    return ctypes.CDLL(found)


def versions() -> dict[str, str]:
    """Who is compared."""
    from cryptography.hazmat.backends.openssl import backend

    crypto, sodium = library("crypto", "libssl3"), library("sodium", "libsodium23")
    crypto.OpenSSL_version.restype = sodium.sodium_version_string.restype = ctypes.c_char_p
    return {
        "OpenSSL (wheel)": backend.openssl_version_text(),
        "OpenSSL (system)": crypto.OpenSSL_version(0).decode(),
        SODIUM: "libsodium " + sodium.sodium_version_string().decode(),
        "processor": processor(),
    }


def processor() -> str:
    """What /proc/cpuinfo calls the processor, and which of the instructions that matter here it has."""
    text = Path("/proc/cpuinfo").read_text()
    rows = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    named = {key.strip(): value.strip() for key, value in rows.items()}
    flags = [flag for flag in ("sha_ni", "bmi2", "adx", "avx2", "avx512ifma") if flag in named.get("flags", "").split()]
    return f"{named.get('model name', 'unknown')} ({' '.join(flags)})"


def wheel_digest(algorithm: Any, data: bytes) -> Call:
    """A hash by the wheel's OpenSSL."""
    from cryptography.hazmat.primitives import hashes

    def run() -> bytes:
        state = hashes.Hash(algorithm)
        state.update(data)
        return state.finalize()

    return run


def wheel_code(data: bytes) -> Call:
    """An HMAC-SHA-512 by the wheel's OpenSSL."""
    from cryptography.hazmat.primitives import hashes, hmac

    def run() -> bytes:
        state = hmac.HMAC(MESSAGE, hashes.SHA512())
        state.update(data)
        return state.finalize()

    return run


def hashes() -> list[Subject]:
    """SHA-256 on one stream and on two, SHA-512, HMAC-SHA-512."""
    return [*short_hashes(), *long_hashes()]


def short_hashes() -> list[Subject]:
    """SHA-256."""
    from cryptography.hazmat.primitives.hashes import SHA256

    from pipeline.kernels.crypto import one_stream, two_streams

    crypto, sodium = library("crypto", "libssl3"), library("sodium", "libsodium23")
    bulk, out, left, right = bytes(BULK), room(32), room(32), room(32)
    single, double = Native(one_stream), Native(two_streams)
    single.bind(out, bulk, 1)()
    double.bind(left, bulk, right, bulk, 1)()
    one, two = single.bind(out, bulk, 0), double.bind(left, bulk, right, bulk, 0)
    theirs: dict[str, Call] = {
        "OpenSSL (wheel)": wheel_digest(SHA256(), bulk),
        "OpenSSL (system)": lambda: crypto.SHA256(bulk, ctypes.c_size_t(BULK), room(32)),
        SODIUM: lambda: sodium.crypto_hash_sha256(room(32), bulk, ctypes.c_ulonglong(BULK)),
    }
    return [
        Subject("SHA-256", BULK, {OURS: one, **theirs}, lambda: out.raw == hashlib.sha256(bulk).digest()),
        Subject(
            "SHA-256, two streams", 2 * BULK, {OURS: two, **twice(theirs)}, lambda: out.raw == left.raw == right.raw
        ),
    ]


def long_hashes() -> list[Subject]:
    """SHA-512 and HMAC over it."""
    from cryptography.hazmat.primitives.hashes import SHA512

    from dsl.std.hkdf import hmac
    from dsl.std.sha512 import BLOCKS_MOST, sha512

    crypto, sodium = library("crypto", "libssl3"), library("sodium", "libsodium23")
    piece, digest, code = bytes(BLOCKS_MOST * 128 // 2), room(64), room(64)
    size = len(piece)
    calls: dict[str, Call] = {
        OURS: Native(sha512).bind(digest, piece),
        "OpenSSL (wheel)": wheel_digest(SHA512(), piece),
        "OpenSSL (system)": lambda: crypto.SHA512(piece, ctypes.c_size_t(size), room(64)),
        SODIUM: lambda: sodium.crypto_hash_sha512(room(64), piece, ctypes.c_ulonglong(size)),
    }
    coding: dict[str, Call] = {
        OURS: Native(hmac).bind(code, MESSAGE, piece),
        "OpenSSL (wheel)": wheel_code(piece),
    }
    return [
        Subject("SHA-512", size, calls, lambda: digest.raw == hashlib.sha512(piece).digest()),
        Subject("HMAC-SHA-512", size, coding, lambda: code.raw == wheel_code(piece)()),
    ]


def twice(calls: dict[str, Call]) -> dict[str, Call]:
    """Each call two times: what a library does with two streams that cannot do them at once."""

    def two(call: Call) -> Call:
        return lambda: (call(), call())

    return {who: two(call) for who, call in calls.items()}


class SystemKeys:
    """Ed25519 and X25519 by the system's libcrypto: one key for all calls, as a program with some sense has it."""

    ED25519, X25519 = 1087, 1034  # EVP_PKEY_ED25519, EVP_PKEY_X25519

    def __init__(self, seed: bytes, public: bytes, peer: bytes) -> None:
        """`seed`: of both private keys; `public`: its Ed25519 key; `peer`: the other side's X25519 key."""
        self.crypto = library("crypto", "libssl3")
        for name in (
            "EVP_PKEY_new_raw_private_key",
            "EVP_PKEY_new_raw_public_key",
            "EVP_PKEY_CTX_new",
            "EVP_MD_CTX_new",
        ):
            getattr(self.crypto, name).restype = ctypes.c_void_p
        size = ctypes.c_size_t(32)
        self.private = ctypes.c_void_p(self.crypto.EVP_PKEY_new_raw_private_key(self.ED25519, None, seed, size))
        self.public = ctypes.c_void_p(self.crypto.EVP_PKEY_new_raw_public_key(self.ED25519, None, public, size))
        exchange = ctypes.c_void_p(self.crypto.EVP_PKEY_new_raw_private_key(self.X25519, None, seed, size))
        other = ctypes.c_void_p(self.crypto.EVP_PKEY_new_raw_public_key(self.X25519, None, peer, size))
        self.context = ctypes.c_void_p(self.crypto.EVP_PKEY_CTX_new(exchange, None))
        self.crypto.EVP_PKEY_derive_init(self.context)
        self.crypto.EVP_PKEY_derive_set_peer(self.context, other)

    def sign(self) -> bytes:
        """A signature of MESSAGE."""
        digest, out, size = ctypes.c_void_p(self.crypto.EVP_MD_CTX_new()), room(64), ctypes.c_size_t(64)
        self.crypto.EVP_DigestSignInit(digest, None, None, None, self.private)
        self.crypto.EVP_DigestSign(digest, out, ctypes.byref(size), MESSAGE, ctypes.c_size_t(len(MESSAGE)))
        self.crypto.EVP_MD_CTX_free(digest)
        return bytes(out.raw)

    def verify(self, signature: bytes) -> int:
        """1 for a good signature of MESSAGE."""
        digest, size = ctypes.c_void_p(self.crypto.EVP_MD_CTX_new()), ctypes.c_size_t(len(MESSAGE))
        self.crypto.EVP_DigestVerifyInit(digest, None, None, None, self.public)
        found: int = self.crypto.EVP_DigestVerify(digest, signature, ctypes.c_size_t(64), MESSAGE, size)
        self.crypto.EVP_MD_CTX_free(digest)
        return found

    def derive(self) -> bytes:
        """The shared secret."""
        out, size = room(32), ctypes.c_size_t(32)
        self.crypto.EVP_PKEY_derive(self.context, out, ctypes.byref(size))
        return bytes(out.raw)


def keys() -> list[Subject]:
    """HKDF, Ed25519, X25519. Raises CryptoBenchError where the two OpenSSL do not agree."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    seed = bytes(range(32))
    private, exchange = Ed25519PrivateKey.from_private_bytes(seed), X25519PrivateKey.from_private_bytes(seed)
    public, signature = private.public_key().public_bytes_raw(), private.sign(MESSAGE)
    peer = X25519PrivateKey.from_private_bytes(MESSAGE[32:]).public_key()
    shared = exchange.exchange(peer)
    system = SystemKeys(seed, public, peer.public_bytes_raw())
    if (system.sign(), system.verify(signature), system.derive()) != (signature, 1, shared):
        raise CryptoBenchError("libcrypto: expected the wheel's signature and shared secret, found others")
    agree: dict[str, Call] = {"OpenSSL (wheel)": lambda: exchange.exchange(peer), "OpenSSL (system)": system.derive}
    return [
        derivation(seed),
        signing(seed, private, system),
        verification(private, signature, system),
        agreement(seed, peer.public_bytes_raw(), shared, agree),
    ]


def derivation(seed: bytes) -> Subject:
    """HKDF."""
    from cryptography.hazmat.primitives.hashes import SHA512
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    from dsl.std.hkdf import hkdf

    key = room(32)

    def theirs() -> bytes:
        return HKDF(SHA512(), 32, seed, MESSAGE).derive(seed)

    calls: dict[str, Call] = {OURS: Native(hkdf).bind(key, seed, seed, MESSAGE), "OpenSSL (wheel)": theirs}
    return Subject("HKDF-SHA-512, 32 bytes", 0, calls, lambda: key.raw == theirs())


def signing(seed: bytes, private: Any, system: SystemKeys) -> Subject:
    """Ed25519 signatures of MESSAGE."""
    from dsl.std.ed25519 import ed25519_sign

    sodium, out, public = library("sodium", "libsodium23"), room(64), private.public_key().public_bytes_raw()
    pair, size = seed + public, ctypes.c_ulonglong(len(MESSAGE))
    calls: dict[str, Call] = {
        OURS: Native(ed25519_sign).bind(out, MESSAGE, seed, public),
        "OpenSSL (wheel)": lambda: private.sign(MESSAGE),
        "OpenSSL (system)": system.sign,
        SODIUM: lambda: sodium.crypto_sign_detached(room(64), None, MESSAGE, size, pair),
    }
    return Subject("Ed25519 sign", 0, calls, lambda: out.raw == private.sign(MESSAGE))


def verification(private: Any, signature: bytes, system: SystemKeys) -> Subject:
    """Ed25519 verification of MESSAGE's signature."""
    from dsl.std.ed25519 import ed25519_verify

    sodium, verifier = library("sodium", "libsodium23"), private.public_key()
    public, size = verifier.public_bytes_raw(), ctypes.c_ulonglong(len(MESSAGE))
    ours = Native(ed25519_verify).bind(public, MESSAGE, signature)
    calls: dict[str, Call] = {
        OURS: ours,
        "OpenSSL (wheel)": lambda: verifier.verify(signature, MESSAGE),
        "OpenSSL (system)": lambda: system.verify(signature),
        SODIUM: lambda: sodium.crypto_sign_verify_detached(signature, MESSAGE, size, public),
    }
    return Subject("Ed25519 verify", 0, calls, lambda: int(str(ours())) & 1 == 1)


def agreement(seed: bytes, peer: bytes, shared: bytes, theirs: dict[str, Call]) -> Subject:
    """X25519."""
    from dsl.std.x25519 import x25519

    sodium, common = library("sodium", "libsodium23"), room(32)
    calls: dict[str, Call] = {OURS: Native(x25519).bind(common, seed, peer), **theirs}
    calls[SODIUM] = lambda: sodium.crypto_scalarmult(room(32), seed, peer)
    return Subject("X25519", 0, calls, lambda: common.raw == shared)


def turn(call: Call, count: int) -> float:
    """The time of one of `count` calls, in ns."""
    begin = time.thread_time_ns()
    for _ in range(count):
        call()
    return (time.thread_time_ns() - begin) / count


def measure(subject: Subject, rounds: int = ROUNDS) -> None:
    """Give everyone a turn, `rounds` times. Raises CryptoBenchError where our result is wrong."""
    counts = {who: max(1, round(TURN_NS / turn(call, 3))) for who, call in subject.calls.items()}
    if not subject.check():
        raise CryptoBenchError(f"{subject.name}: expected the result of OpenSSL, found another")
    for _ in range(rounds):
        for who, call in subject.calls.items():
            subject.times.setdefault(who, []).append(turn(call, counts[who]))


def anchor(subject: Subject) -> str:
    """Whom ours is held against: the faster OpenSSL."""
    return min((who for who in subject.calls if who.startswith("OpenSSL")), key=subject.median)


def figure(subject: Subject, who: str) -> float:
    """What is reported: GB/s of bulk, or microseconds of an operation."""
    return round(subject.size / subject.median(who) if subject.size else subject.median(who) / 1000, 3)


def row(subject: Subject) -> dict[str, object]:
    """A row as JSON has it; `ratio` is how many times as fast as the anchor ours is."""
    ratio = subject.median(anchor(subject)) / subject.median(OURS)
    return {
        "name": subject.name,
        "ours": figure(subject, OURS),
        "anchor": figure(subject, anchor(subject)),
        "unit": "GB/s" if subject.size else "us",
        "how": f"median of {ROUNDS} interleaved rounds; the anchor is {anchor(subject)}; ratio: times as fast as it",
        "ratio": round(ratio, 3),
        "all": {who: figure(subject, who) for who in subject.calls},
    }


def table(subjects: list[Subject]) -> str:
    """What people read."""
    names = (OURS, "OpenSSL (wheel)", "OpenSSL (system)", SODIUM)
    lines = ["".ljust(24) + "".join(name.rjust(18) for name in names) + "ratio to OpenSSL".rjust(18)]
    for subject in subjects:
        unit = "GB/s" if subject.size else "us"
        cells = [f"{figure(subject, name):.3f} {unit}" if name in subject.calls else "-" for name in names]
        lines.append(subject.name.ljust(24) + "".join(f"{cell:>18}" for cell in (*cells, f"{row(subject)['ratio']}")))
    return "\n".join([*lines, *(f"{who}: {what}" for who, what in versions().items())])


def report(as_json: bool) -> int:
    """Measure and print."""
    known = versions()
    say("compile")
    subjects = [*hashes(), *keys()]
    for subject in subjects:
        say(f"measure {subject.name}")
        measure(subject)
    if as_json:
        print(json.dumps({"rows": [row(subject) for subject in subjects], "versions": known}, indent=1))
    else:
        print(table(subjects))
    return OK

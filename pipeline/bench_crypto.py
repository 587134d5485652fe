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


def hashes() -> list[Subject]:
    """SHA-256 on one stream and on two, SHA-512, HMAC-SHA-512."""
    from cryptography.hazmat.primitives import hashes as wheel
    from cryptography.hazmat.primitives import hmac as wheel_hmac

    from dsl.std.hkdf import hmac
    from dsl.std.sha512 import BLOCKS_MOST, sha512
    from pipeline.kernels.crypto import one_stream, two_streams

    crypto, sodium = library("crypto", "libssl3"), library("sodium", "libsodium23")
    bulk, piece = bytes(BULK), bytes(BLOCKS_MOST * 128 // 2)

    def digest_of(algorithm: Any, data: bytes) -> Call:
        def run() -> bytes:
            state = wheel.Hash(algorithm)
            state.update(data)
            return state.finalize()

        return run

    def code_of(data: bytes) -> Call:
        def run() -> bytes:
            state = wheel_hmac.HMAC(MESSAGE, wheel.SHA512())
            state.update(data)
            return state.finalize()

        return run

    out, left, right, digest, code = room(32), room(32), room(32), room(64), room(64)
    single, double = Native(one_stream), Native(two_streams)
    single.bind(out, bulk, 1)()
    double.bind(left, bulk, right, bulk, 1)()
    one, two = single.bind(out, bulk, 0), double.bind(left, bulk, right, bulk, 0)
    theirs: dict[str, Call] = {
        "OpenSSL (wheel)": digest_of(wheel.SHA256(), bulk),
        "OpenSSL (system)": lambda: crypto.SHA256(bulk, ctypes.c_size_t(BULK), room(32)),
        SODIUM: lambda: sodium.crypto_hash_sha256(room(32), bulk, ctypes.c_ulonglong(BULK)),
    }
    longer: dict[str, Call] = {
        "OpenSSL (wheel)": digest_of(wheel.SHA512(), piece),
        "OpenSSL (system)": lambda: crypto.SHA512(piece, ctypes.c_size_t(len(piece)), room(64)),
        SODIUM: lambda: sodium.crypto_hash_sha512(room(64), piece, ctypes.c_ulonglong(len(piece))),
    }
    return [
        Subject("SHA-256", BULK, {OURS: one, **theirs}, lambda: out.raw == hashlib.sha256(bulk).digest()),
        Subject("SHA-256, two streams", 2 * BULK, {OURS: two, **twice(theirs)}, lambda: out.raw == left.raw == right.raw),
        Subject(
            "SHA-512", len(piece), {OURS: Native(sha512).bind(digest, piece), **longer},
            lambda: digest.raw == hashlib.sha512(piece).digest(),
        ),
        Subject(
            "HMAC-SHA-512", len(piece),
            {OURS: Native(hmac).bind(code, MESSAGE, piece), "OpenSSL (wheel)": code_of(piece)},
            lambda: code.raw == code_of(piece)(),
        ),
    ]  # fmt: skip


def twice(calls: dict[str, Call]) -> dict[str, Call]:
    """Each call two times: what a library does with two streams that cannot do them at once."""

    def two(call: Call) -> Call:
        return lambda: (call(), call())

    return {who: two(call) for who, call in calls.items()}


def keys() -> list[Subject]:
    """HKDF, Ed25519, X25519."""
    from cryptography.hazmat.primitives import hashes as wheel
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    from dsl.std.ed25519 import ed25519_sign, ed25519_verify
    from dsl.std.hkdf import hkdf
    from dsl.std.x25519 import x25519

    crypto, sodium = library("crypto", "libssl3"), library("sodium", "libsodium23")
    for name in ("EVP_PKEY_new_raw_private_key", "EVP_PKEY_new_raw_public_key", "EVP_PKEY_CTX_new", "EVP_MD_CTX_new"):
        getattr(crypto, name).restype = ctypes.c_void_p
    seed = bytes(range(32))
    private = Ed25519PrivateKey.from_private_bytes(seed)
    public, signature = private.public_key().public_bytes_raw(), private.sign(MESSAGE)
    exchange = X25519PrivateKey.from_private_bytes(seed)
    peer = X25519PrivateKey.from_private_bytes(MESSAGE[32:]).public_key()
    shared, derived = exchange.exchange(peer), HKDF(wheel.SHA512(), 32, seed, MESSAGE).derive(seed)
    length = ctypes.c_size_t(len(MESSAGE))
    ed_private = ctypes.c_void_p(crypto.EVP_PKEY_new_raw_private_key(1087, None, seed, ctypes.c_size_t(32)))
    ed_public = ctypes.c_void_p(crypto.EVP_PKEY_new_raw_public_key(1087, None, public, ctypes.c_size_t(32)))
    x_private = ctypes.c_void_p(crypto.EVP_PKEY_new_raw_private_key(1034, None, seed, ctypes.c_size_t(32)))
    x_peer = ctypes.c_void_p(
        crypto.EVP_PKEY_new_raw_public_key(1034, None, peer.public_bytes_raw(), ctypes.c_size_t(32))
    )
    context = ctypes.c_void_p(crypto.EVP_PKEY_CTX_new(x_private, None))
    crypto.EVP_PKEY_derive_init(context)
    crypto.EVP_PKEY_derive_set_peer(context, x_peer)

    def system_sign() -> bytes:
        digest, out, size = ctypes.c_void_p(crypto.EVP_MD_CTX_new()), room(64), ctypes.c_size_t(64)
        crypto.EVP_DigestSignInit(digest, None, None, None, ed_private)
        crypto.EVP_DigestSign(digest, out, ctypes.byref(size), MESSAGE, length)
        crypto.EVP_MD_CTX_free(digest)
        return bytes(out.raw)

    def system_verify() -> int:
        digest = ctypes.c_void_p(crypto.EVP_MD_CTX_new())
        crypto.EVP_DigestVerifyInit(digest, None, None, None, ed_public)
        found: int = crypto.EVP_DigestVerify(digest, signature, ctypes.c_size_t(64), MESSAGE, length)
        crypto.EVP_MD_CTX_free(digest)
        return found

    def system_derive() -> bytes:
        out, size = room(32), ctypes.c_size_t(32)
        crypto.EVP_PKEY_derive(context, out, ctypes.byref(size))
        return bytes(out.raw)

    if (system_sign(), system_verify(), system_derive()) != (signature, 1, shared):
        raise CryptoBenchError("libcrypto: expected the wheel's signature and shared secret, found others")
    out, common, key = room(64), room(32), room(32)
    verify = Native(ed25519_verify).bind(public, MESSAGE, signature)
    sodium_key, message = seed + public, ctypes.c_ulonglong(len(MESSAGE))
    verifier = private.public_key()
    return [
        Subject(
            "HKDF-SHA-512, 32 bytes", 0,
            {
                OURS: Native(hkdf).bind(key, seed, seed, MESSAGE),
                "OpenSSL (wheel)": lambda: HKDF(wheel.SHA512(), 32, seed, MESSAGE).derive(seed),
            },
            lambda: key.raw == derived,
        ),
        Subject(
            "Ed25519 sign", 0,
            {
                OURS: Native(ed25519_sign).bind(out, MESSAGE, seed, public),
                "OpenSSL (wheel)": lambda: private.sign(MESSAGE),
                "OpenSSL (system)": system_sign,
                SODIUM: lambda: sodium.crypto_sign_detached(room(64), None, MESSAGE, message, sodium_key),
            },
            lambda: out.raw == signature,
        ),
        Subject(
            "Ed25519 verify", 0,
            {
                OURS: verify,
                "OpenSSL (wheel)": lambda: verifier.verify(signature, MESSAGE),
                "OpenSSL (system)": system_verify,
                SODIUM: lambda: sodium.crypto_sign_verify_detached(signature, MESSAGE, message, public),
            },
            lambda: int(str(verify())) & 1 == 1,
        ),
        Subject(
            "X25519", 0,
            {
                OURS: Native(x25519).bind(common, seed, peer.public_bytes_raw()),
                "OpenSSL (wheel)": lambda: exchange.exchange(peer),
                "OpenSSL (system)": system_derive,
                SODIUM: lambda: sodium.crypto_scalarmult(room(32), seed, peer.public_bytes_raw()),
            },
            lambda: common.raw == shared,
        ),
    ]  # fmt: skip


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

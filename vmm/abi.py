"""What a guest may know of the monitor: hypercall numbers, statuses and records (docs/formats.md, "Hypercalls").

VMCALL; number in rax; arguments in rdi, rsi, rdx, r10, r8; status in rax; all other registers are preserved.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from dsl.lang import Array, Struct, array, u8, u32, u64

ABI_VERSION: Final = 1
TRANSFER_LIMIT: Final = 256  # bytes that RANDOM, LOG and EVIDENCE move at most
ENDORSE_DATA_LIMIT: Final = 256  # bytes
CERTIFICATE_LIMIT: Final = 1024  # bytes


class Hypercall(Enum):
    """The number in rax."""

    VERSION = u64(0)
    GET_ID = u64(1)
    ENDORSE = u64(2)
    RANDOM = u64(3)
    LOG = u64(4)
    YIELD = u64(5)
    EVIDENCE = u64(6)


class EvidenceItem(Enum):
    """What EVIDENCE reads, by its kind in a bundle (docs/evidence.md, "The bundle")."""

    QUOTE = u64(7)
    SIGNATURE = u64(8)
    EVENT_LOG = u64(9)


class Status(Enum):
    """The answer in rax."""

    OK = u64(0)
    UNKNOWN_CALL = u64(1)
    BAD_ADDRESS = u64(2)
    BAD_SIZE = u64(3)
    NOT_PERMITTED = u64(4)
    AGAIN = u64(5)  # the work goes on: call again with the same arguments
    NO_ENTROPY = u64(6)


class Certificate(Struct, size=1028):
    """A DER certificate of `size` bytes, zero padded."""

    size: u32
    bytes: Array[u8] = array(CERTIFICATE_LIMIT)


class BoxIdentity(Struct, size=3184):
    """What GET_ID writes: who the caller is, and the run-time chain down to it."""

    descriptor_sha256: Array[u8] = array(32)
    label: Array[u8] = array(32)
    public_key: Array[u8] = array(32)
    mode: u32  # Open DICE mode: 2 is debug
    device: Certificate
    monitor: Certificate
    box: Certificate


class EndorseRequest(Struct, size=328):
    """What ENDORSE reads: a public key of the caller's, the verifier's nonce, and data to bind."""

    public_key: Array[u8] = array(32)
    nonce: Array[u8] = array(32)
    data_size: u32
    reserved: u32
    data: Array[u8] = array(ENDORSE_DATA_LIMIT)


class Endorsement(Struct, size=1028):
    """What ENDORSE writes: a leaf certificate signed by the box's key."""

    size: u32
    der: Array[u8] = array(CERTIFICATE_LIMIT)

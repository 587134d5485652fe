"""Evidence: a key pair of the witness's own, endorsed by the monitor over a nonce, and bundled (docs/formats.md, "Evidence bundle").

The data that is endorsed is a report of 32 bytes, zero-padded text (what the canaries say), and an Ed25519 signature by the witness's
key over report and nonce: so the verifier also learns that the witness holds the key.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import (
    Array,
    Failure,
    Struct,
    address_of,
    array,
    as_secret,
    between,
    frame_array,
    machine,
    size_of,
    static,
    static_array,
    u8,
    u32,
    u64,
    upto,
)
from dsl.lang.intrinsics import vmcall
from dsl.std.ed25519 import PUBLIC_KEY_SIZE, SEED_SIZE, SIGNATURE_SIZE, ed25519_public_key, ed25519_sign
from vmm.abi import (
    TRANSFER_LIMIT,
    BoxIdentity,
    Certificate,
    Endorsement,
    EndorseRequest,
    EvidenceItem,
    Hypercall,
    Status,
)

NONCE_SIZE: Final = 32
REPORT_SIZE: Final = 32
DATA_SIZE: Final = REPORT_SIZE + SIGNATURE_SIZE
RANDOM_TRIES: Final = 1000
ENDORSE_STEPS: Final = 1_000_000  # resumptions before the monitor is declared stuck

BUNDLE_MAGIC: Final = int.from_bytes(b"TRNEVID1", "little")
BUNDLE_VERSION: Final = 1
ITEM_COUNT: Final = 5  # and what there is of a TPM
ITEM_DEVICE: Final = 1
ITEM_MONITOR: Final = 2
ITEM_BOX: Final = 3
ITEM_ENDORSEMENT: Final = 4
ITEM_WITNESS_DATA: Final = 6
BUNDLE_LIMIT: Final = 8192 + 1024 + 131072  # certificates, quote, event log


class Keys(Struct):
    """The witness's key pair."""

    seed: Array[u8] = array(SEED_SIZE)
    public_key: Array[u8] = array(PUBLIC_KEY_SIZE)


KEYS: Final = static(Keys)
IDENTITY: Final = static(BoxIdentity)
REQUEST: Final = static(EndorseRequest)
ENDORSEMENT: Final = static(Endorsement)
BUNDLE: Final = static_array(u8, BUNDLE_LIMIT)


@machine
def call_with_buffer(number: Hypercall, buffer: u64, size: u64) -> u64:
    """Make a hypercall that takes one buffer, and return its status. The box runs with guest-physical = virtual addresses."""
    return vmcall(number.value, buffer, size, u64(0), u64(0), u64(0)).status


@machine
def make_keys() -> Failure | None:
    """Make the key pair from the monitor's random bytes. Failure: the status of RANDOM."""
    status = Status.NO_ENTROPY.value
    for _ in upto(u64(RANDOM_TRIES)):
        status = call_with_buffer(Hypercall.RANDOM, address_of(KEYS.seed).as_u64(), u64(SEED_SIZE))
        if status != Status.NO_ENTROPY.value:
            break
    if status != Status.OK.value:
        return Failure(status)
    ed25519_public_key(KEYS.public_key, as_secret(KEYS.seed))
    return None


@machine
def fetch_identity() -> Failure | None:
    """Ask the monitor who this box is. Failure: the status of GET_ID."""
    status = call_with_buffer(Hypercall.GET_ID, address_of(IDENTITY).as_u64(), u64(size_of(BoxIdentity)))
    if status != Status.OK.value:
        return Failure(status)
    return None


@machine
def sign_report(nonce: Array[u8], report: Array[u8]) -> None:
    """Write the data to be endorsed into REQUEST: the report, padded, and the signature over report and nonce."""
    message = frame_array(u8, REPORT_SIZE + NONCE_SIZE)
    message.slice(u64(0), report.length).copy_from(report)
    message.slice(u64(REPORT_SIZE), u64(NONCE_SIZE)).copy_from(nonce)
    REQUEST.data.slice(u64(0), u64(REPORT_SIZE)).copy_from(message.slice(u64(0), u64(REPORT_SIZE)))
    signature = REQUEST.data.slice(u64(REPORT_SIZE), u64(SIGNATURE_SIZE))
    ed25519_sign(signature, message, as_secret(KEYS.seed), KEYS.public_key)


@machine
def endorse(nonce: Array[u8], report: Array[u8]) -> Failure | None:
    """Have the key, the nonce and the report (at most 32 bytes) endorsed into ENDORSEMENT. Failure: the status of ENDORSE."""
    REQUEST.clear()
    REQUEST.public_key.copy_from(KEYS.public_key)
    REQUEST.nonce.copy_from(nonce)
    REQUEST.data_size = u32(DATA_SIZE)
    sign_report(nonce, report)
    request = address_of(REQUEST).as_u64()
    answer = address_of(ENDORSEMENT).as_u64()
    status = Status.AGAIN.value
    for _ in upto(u64(ENDORSE_STEPS)):
        status = vmcall(
            Hypercall.ENDORSE.value,
            request,
            u64(size_of(EndorseRequest)),
            answer,
            u64(size_of(Endorsement)),
            u64(0),
        ).status
        if status != Status.AGAIN.value:
            break
    if status != Status.OK.value:
        return Failure(status)
    return None


@machine
def append_item(end: u64, kind: u64, content: Array[u8]) -> u64:
    """Write an item at `end` of the bundle and return its new end."""
    BUNDLE.store_u32(end, kind.truncate(u32))
    BUNDLE.store_u32(end + 4, content.length.truncate(u32))
    BUNDLE.slice(end + 8, content.length).copy_from(content)
    return end + 8 + content.length


@machine
def append_certificate(end: u64, kind: u64, certificate: Certificate) -> u64:
    """Write a certificate as an item and return the bundle's new end."""
    return append_item(end, kind, certificate.bytes.slice(u64(0), u64(certificate.size)))


@machine
def append_measured(end: u64, kind: u64) -> u64:
    """Fetch an item of the monitor's and return the bundle's new end; the old one where there is none, or it is too large."""
    place = address_of(BUNDLE).as_u64() + end + 8
    limit = BUNDLE.length - end - (8 + TRANSFER_LIMIT)
    offset = u64(0)
    while offset < limit:
        answer = vmcall(Hypercall.EVIDENCE.value, place + offset, u64(TRANSFER_LIMIT), kind, offset, u64(0))
        if answer.status != Status.OK.value or answer.result == 0:
            return end
        offset += TRANSFER_LIMIT
        if offset >= answer.result:
            BUNDLE.store_u32(end, kind.truncate(u32))
            BUNDLE.store_u32(end + 4, answer.result.truncate(u32))
            BUNDLE.store_u32(u64(12), BUNDLE.load_u32(u64(12)) + 1)
            return end + 8 + answer.result
    return end


@machine
def make_bundle() -> Array[u8]:
    """Bundle the chain, the endorsement and what was endorsed, and what the monitor has of a TPM."""
    BUNDLE.store_u64(u64(0), u64(BUNDLE_MAGIC))
    BUNDLE.store_u32(u64(8), u32(BUNDLE_VERSION))
    BUNDLE.store_u32(u64(12), u32(ITEM_COUNT))
    end = append_certificate(u64(16), u64(ITEM_DEVICE), IDENTITY.device)
    end = append_certificate(end, u64(ITEM_MONITOR), IDENTITY.monitor)
    end = append_certificate(end, u64(ITEM_BOX), IDENTITY.box)
    end = append_item(end, u64(ITEM_ENDORSEMENT), ENDORSEMENT.der.slice(u64(0), u64(ENDORSEMENT.size)))
    end = append_item(end, u64(ITEM_WITNESS_DATA), REQUEST.data.slice(u64(0), u64(DATA_SIZE)))
    for kind in between(EvidenceItem.QUOTE.value, EvidenceItem.EVENT_LOG.value + 1):
        end = append_measured(end, kind)
    return BUNDLE.slice(u64(0), end)

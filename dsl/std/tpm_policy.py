"""The policy of a TPM's secret: PolicyPCR and PolicyNV, approved by a key (docs/evidence.md, "Policy of the device secret")."""

from __future__ import annotations

from typing import Final, SupportsInt

from dsl.hw.tpm import (
    ECDSA,
    LOAD_EXTERNAL,
    NULL_ALGORITHM,
    NULL_HANDLE,
    OWNER,
    POLICY_AUTHORIZE,
    POLICY_GET_DIGEST,
    POLICY_NV,
    POLICY_PCR,
    POLICY_SESSION,
    SHA256,
    START_SESSION,
    UNSIGNED_AT_MOST,
    VERIFY_SIGNATURE,
)
from dsl.lang import Array, Failure, frame_array, machine, table, u8, u32, u64
from dsl.std.sha256 import sha256
from dsl.std.tpm import (
    AUTHORIZATION,
    TPM,
    TpmFault,
    begin,
    command,
    put_bytes,
    put_sized,
    take_bytes,
    take_sized,
    take_u32,
    taken,
)
from dsl.std.tpm_command import HANDLE, SELECTION, SELECTION_MAP, execute, finish, flush, for_bytes

NAME_SIZE: Final = 34  # algorithm and SHA-256
TICKET_LIMIT: Final = 128
NOTHING: Final = bytes(2)


def short(word: SupportsInt) -> bytes:
    """Two bytes, at build time."""
    return int(word).to_bytes(2, "big")


# A policy without a key: nothing hangs on the nonce.
START: Final = table(
    u8,
    command(
        START_SESSION,
        int(NULL_HANDLE),
        int(NULL_HANDLE),
        short(16) + bytes(16) + NOTHING + bytes([int(POLICY_SESSION)]) + short(NULL_ALGORITHM) + short(SHA256),
    ),
)
BIND: Final = table(u8, command(POLICY_PCR, 0, NOTHING, SELECTION))  # no digest: the present values
BOUND_MAP: Final = HANDLE + 4 + len(NOTHING) + SELECTION_MAP
LIMIT: Final = table(
    u8,
    command(POLICY_NV, 0, 0, 0, AUTHORIZATION, short(8) + bytes(8), NOTHING, short(UNSIGNED_AT_MOST), sessions=True),
)
LIMIT_VALUE: Final = HANDLE + 12 + len(AUTHORIZATION) + 2
GET_DIGEST: Final = table(u8, command(POLICY_GET_DIGEST, 0))
KEY_HEAD: Final = bytes.fromhex("0023 000b 00040040 0000 0010 0018 000b 0003 0010")
LOAD: Final = table(u8, command(LOAD_EXTERNAL, NOTHING, short(88) + KEY_HEAD))
HIERARCHY: Final = table(u8, int(OWNER).to_bytes(4, "big"))
VERIFY: Final = table(u8, command(VERIFY_SIGNATURE, 0))
SCHEME: Final = table(u8, short(ECDSA) + short(SHA256))
AUTHORIZE: Final = table(u8, command(POLICY_AUTHORIZE, 0))


@machine
def start_policy() -> u32 | Failure:
    """A new policy session; its handle."""
    begin(START)
    executed = execute()
    if isinstance(executed, Failure):
        return executed
    handle = take_u32()
    _ = take_sized()
    end = taken()
    if isinstance(end, Failure):
        return end
    return handle


@machine
def policy_pcr(session: u32, mask: u32) -> Failure | None:
    """Bind to the present values of these PCRs."""
    begin(BIND)
    TPM.command.store_be32(HANDLE, session)
    TPM.command.store_u32(BOUND_MAP, mask)
    return finish()


@machine
def policy_at_most(session: u32, index: u32, limit: u64) -> Failure | None:
    """Require that an NV index of 8 bytes holds at most this; its own (empty) password authorizes the look."""
    begin(LIMIT)
    TPM.command.store_be32(HANDLE, index)
    TPM.command.store_be32(HANDLE + 4, index)
    TPM.command.store_be32(HANDLE + 8, session)
    TPM.command.store_be64(LIMIT_VALUE, limit)
    return finish()


@machine
def policy_digest(session: u32) -> Array[u8] | Failure:
    """What the session's policy amounts to so far, in the answer's place."""
    begin(GET_DIGEST)
    TPM.command.store_be32(HANDLE, session)
    return for_bytes()


@machine
def load_key(x: Array[u8], y: Array[u8], name: Array[u8]) -> u32 | Failure:
    """Load the public key with these coordinates; writes its name, NAME_SIZE bytes. The handle is the result."""
    begin(LOAD)
    put_sized(x)
    put_sized(y)
    put_bytes(HIERARCHY)
    executed = execute()
    if isinstance(executed, Failure):
        return executed
    handle = take_u32()
    given = take_sized()
    end = taken()
    if isinstance(end, Failure):
        return end
    if given.length != NAME_SIZE:
        return Failure(TpmFault.ANSWER_CONTENT.value)
    name.copy_from(given)
    return handle


@machine
def verify_signature(key: u32, digest: Array[u8], r: Array[u8], s: Array[u8], ticket: Array[u8]) -> u64 | Failure:
    """Have the TPM check an ECDSA SHA-256 signature; writes the ticket that says so, whose size is the result."""
    begin(VERIFY)
    TPM.command.store_be32(HANDLE, key)
    put_sized(digest)
    put_bytes(SCHEME)
    put_sized(r)
    put_sized(s)
    executed = execute()
    if isinstance(executed, Failure):
        return executed
    size = TPM.end - TPM.offset
    if size > TICKET_LIMIT:
        return Failure(TpmFault.ANSWER_CONTENT.value)
    ticket.slice(0, size).copy_from(take_bytes(size))
    return size


@machine
def approve(
    session: u32, x: Array[u8], y: Array[u8], approved: Array[u8], r: Array[u8], s: Array[u8]
) -> Failure | None:
    """Put the key's approval in the place of the session's policy so far, which must be the approved one."""
    name = frame_array(u8, NAME_SIZE)
    key = load_key(x, y, name)
    if isinstance(key, Failure):
        return key
    digest = frame_array(u8, 32)
    sha256(digest, approved)
    ticket = frame_array(u8, TICKET_LIMIT)
    size = verify_signature(key, digest, r, s, ticket)
    _ = flush(key)
    if isinstance(size, Failure):
        return size
    begin(AUTHORIZE)
    TPM.command.store_be32(HANDLE, session)
    put_sized(approved)
    put_sized(approved.slice(0, 0))  # no reference: the key approves this policy for any purpose
    put_sized(name)
    put_bytes(ticket.slice(0, size))
    return finish()

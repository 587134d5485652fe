"""The policy of a TPM's secret: PolicyPCR and PolicyNV, approved by a key (docs/evidence.md, "Policy of the device secret")."""

from __future__ import annotations

from typing import Final

from dsl.hw.tpm import (
    ECDSA,
    LOAD_EXTERNAL,
    NULL_ALGORITHM,
    NULL_HANDLE,
    OWNER,
    PASSWORD,
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
from dsl.lang import Array, Failure, frame_array, machine, table, u8, u16, u32, u64
from dsl.std.sha256 import sha256
from dsl.std.tpm import (
    TPM,
    TpmFault,
    begin,
    put_authorization,
    put_bytes,
    put_sized,
    put_u8,
    put_u16,
    put_u32,
    take_bytes,
    take_sized,
    take_u32,
    taken,
)
from dsl.std.tpm_command import execute, finish, flush, put_selection

NONCE_SIZE: Final = 16
NAME_SIZE: Final = 34  # algorithm and SHA-256
TICKET_LIMIT: Final = 128
KEY_HEAD: Final = table(u8, bytes.fromhex("0023 000b 00040040 0000 0010 0018 000b 0003 0010"))
KEY_SIZE: Final = 88  # KEY_HEAD, and both coordinates, sized
KEY_X: Final = 22
KEY_Y: Final = 56


@machine
def write_policy_key(public: Array[u8], x: Array[u8], y: Array[u8]) -> None:
    """Write the public area of an ECDSA P-256 key, KEY_SIZE bytes, from its coordinates."""
    public.slice(0, KEY_HEAD.length).copy_from(KEY_HEAD)
    public.store_u16(KEY_X - 2, u16(0x2000))
    public.slice(KEY_X, 32).copy_from(x)
    public.store_u16(KEY_Y - 2, u16(0x2000))
    public.slice(KEY_Y, 32).copy_from(y)


@machine
def start_policy() -> u32 | Failure:
    """A new policy session; its handle."""
    begin(START_SESSION)
    put_u32(NULL_HANDLE)
    put_u32(NULL_HANDLE)
    put_sized(frame_array(u8, NONCE_SIZE))  # a policy without a key: nothing hangs on the nonce
    put_u16(u16(0))
    put_u8(POLICY_SESSION)
    put_u16(NULL_ALGORITHM)
    put_u16(SHA256)
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
    begin(POLICY_PCR)
    put_u32(session)
    put_u16(u16(0))  # no digest: the present values
    put_selection(mask)
    return finish()


@machine
def policy_at_most(session: u32, index: u32, limit: u64) -> Failure | None:
    """Require that an NV index of 8 bytes holds at most this; its own (empty) password authorizes the look."""
    begin(POLICY_NV)
    put_u32(index)
    put_u32(index)
    put_u32(session)
    put_authorization(PASSWORD)
    put_u16(u16(8))
    put_u32((limit >> 32).truncate(u32))
    put_u32(limit.truncate(u32))
    put_u16(u16(0))
    put_u16(UNSIGNED_AT_MOST)
    return finish()


@machine
def policy_digest(session: u32) -> Array[u8] | Failure:
    """What the session's policy amounts to so far, in the answer's place."""
    begin(POLICY_GET_DIGEST)
    put_u32(session)
    executed = execute()
    if isinstance(executed, Failure):
        return executed
    digest = take_sized()
    end = taken()
    if isinstance(end, Failure):
        return end
    return digest


@machine
def load_key(public: Array[u8], name: Array[u8]) -> u32 | Failure:
    """Load a public key; writes its name, NAME_SIZE bytes. The handle is the result."""
    begin(LOAD_EXTERNAL)
    put_u16(u16(0))  # no private part
    put_sized(public)
    put_u32(OWNER)
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
    begin(VERIFY_SIGNATURE)
    put_u32(key)
    put_sized(digest)
    put_u16(ECDSA)
    put_u16(SHA256)
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
def policy_authorize(session: u32, approved: Array[u8], name: Array[u8], ticket: Array[u8]) -> Failure | None:
    """Put the key's approval in the place of the policy so far, which must be the approved one."""
    begin(POLICY_AUTHORIZE)
    put_u32(session)
    put_sized(approved)
    put_u16(u16(0))  # policyRef
    put_sized(name)
    put_bytes(ticket)
    return finish()


@machine
def approve(session: u32, public: Array[u8], approved: Array[u8], r: Array[u8], s: Array[u8]) -> Failure | None:
    """Authorize the session's policy by a signature of the key over it."""
    name = frame_array(u8, NAME_SIZE)
    key = load_key(public, name)
    if isinstance(key, Failure):
        return key
    digest = frame_array(u8, 32)
    sha256(digest, approved)
    ticket = frame_array(u8, TICKET_LIMIT)
    size = verify_signature(key, digest, r, s, ticket)
    _ = flush(key)
    if isinstance(size, Failure):
        return size
    return policy_authorize(session, approved, name, ticket.slice(0, size))

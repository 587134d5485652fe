"""The device secret: the TPM's, where it releases one; otherwise what the signed header allows (docs/evidence.md)."""

from __future__ import annotations

from typing import Final

from boot.approvals import APPROVAL_ROWS, APPROVALS_MAGIC
from boot.entries import APPROVALS, SECRET
from boot.handoff import TPM_STATE_SHIFT, Handoff, TpmState
from boot.header import ENTRY_CAPACITY, FLAG_DEBUG, FLAG_TPM_REQUIRED, SECRET_SIZE, EntryKind, ImageHeader
from boot.output import require, say
from boot.refusal import Refusal, Rule
from boot.tpm import close_policies, set_state
from dsl.hw.tpm import PASSWORD
from dsl.lang import Failure, erase, machine, minimum, static_array, text, u8, u32, u64, upto
from dsl.std.dice import POSTURE_DEBUG, POSTURE_DEVELOPMENT_SECRET, POSTURE_TPM
from dsl.std.tpm import RESPONSE, TPM
from dsl.std.tpm_command import flush, lock_index, read_index, read_public
from dsl.std.tpm_policy import (
    approve,
    policy_at_most,
    policy_digest,
    policy_pcr,
    start_policy,
)

FLOOR_INDEX: Final = u32(0x01805400)
SECRET_INDEX: Final = u32(0x01805401)
TPM_SECRET: Final = static_array(u8, SECRET_SIZE)
NO_ROW: Final = 99  # beside TpmFault: the table has no row for these PCRs and this floor


@machine
def row_count() -> u64:
    """How many rows the approval table has."""
    return minimum(u64(APPROVALS.count), u64(APPROVAL_ROWS)) if APPROVALS.magic == APPROVALS_MAGIC else u64(0)


@machine
def check_floor(header: ImageHeader) -> Failure | None:
    """Refuse an image that is below the floor by every row of its approval table (which may serve several machines), or without one."""
    value = read_index(FLOOR_INDEX, PASSWORD, u64(8))
    if isinstance(value, Failure):
        return value
    counter = value.load_be64(0)
    rows = row_count()
    floor = counter if rows == 0 else ~u64(0)
    for row in upto(rows, at_most=APPROVAL_ROWS):
        floor = minimum(floor, counter - APPROVALS.rows[row].counter_base)
    if header.security_version < floor:
        close_policies(text("refused"))
        require(Refusal(Rule.TPM_FLOOR, u64(0), floor, header.security_version))
    return None


@machine
def try_row(session: u32, row: u64, version: u64) -> Failure | None:
    """Make the session meet the secret's policy by one row of the approval table."""
    approval = APPROVALS.rows[row]
    bound = policy_pcr(session, approval.pcrs)
    if isinstance(bound, Failure):
        return bound
    limited = policy_at_most(session, FLOOR_INDEX, approval.counter_base + version)
    if isinstance(limited, Failure):
        return limited
    digest = policy_digest(session)
    if isinstance(digest, Failure):
        return digest
    if not digest.equals(approval.digest):
        return Failure(NO_ROW)
    return approve(session, APPROVALS.x, APPROVALS.y, approval.digest, approval.r, approval.s)


@machine
def authorize(version: u64) -> u32 | Failure:
    """A policy session that meets the secret's policy: the first row that does it. What the last row met with, if none does."""
    code = u64(NO_ROW)
    for row in upto(row_count(), at_most=APPROVAL_ROWS):
        session = start_policy()
        if isinstance(session, Failure):
            return session
        tried = try_row(session, row, version)
        if not isinstance(tried, Failure):
            return session
        code = tried.code
        _ = flush(session)
        if code < NO_ROW:
            return tried
    return Failure(code)


@machine
def read_secret(session: u32) -> Failure | None:
    """Read the secret into TPM_SECRET; no copy of it stays in the answer."""
    value = read_index(SECRET_INDEX, session, u64(SECRET_SIZE))
    if not isinstance(value, Failure):
        TPM_SECRET.copy_from(value)
    erase(TPM.answer)  # a malformed answer may hold it, too
    if isinstance(value, Failure):
        return value
    return None


@machine
def use_secret(version: u64, lock: bool) -> Failure | None:
    """Read the secret, or lock it until reset: each use of a policy is its only one."""
    session = authorize(version)
    if isinstance(session, Failure):
        return session
    used = lock_index(SECRET_INDEX, session) if lock else read_secret(session)
    _ = flush(session)
    return used


@machine
def take_secret(handoff: Handoff, header: ImageHeader) -> None:
    """Read the TPM's secret and lock it; both, or it is not used."""
    floor = read_public(SECRET_INDEX)
    if not isinstance(floor, Failure):
        floor = check_floor(header)
    if isinstance(floor, Failure):
        set_state(handoff, TpmState.UNPROVISIONED if floor.code >= RESPONSE else TpmState.BROKEN, floor.code)
        return
    taken = use_secret(header.security_version, False)
    if not isinstance(taken, Failure):
        taken = use_secret(header.security_version, True)
    if isinstance(taken, Failure):
        erase(TPM_SECRET)
        withheld = taken.code >= RESPONSE or taken.code == NO_ROW
        set_state(handoff, TpmState.WITHHELD if withheld else TpmState.BROKEN, taken.code)
        return
    SECRET.copy_from(TPM_SECRET)
    erase(TPM_SECRET)
    set_state(handoff, TpmState.READY, u64(0))


@machine
def has_development_secret(header: ImageHeader) -> bool:
    """Whether the image carries one."""
    for row in upto(u64(header.entry_count), at_most=ENTRY_CAPACITY):
        if header.entries[row].kind == EntryKind.DEVELOPMENT_SECRET.value:
            return True
    return False


@machine
def choose_secret(handoff: Handoff, header: ImageHeader) -> None:
    """Put the device secret into SECRET, which holds the development secret if the image has one; set the posture, and say which it is."""
    posture = u64(header.flags & FLAG_DEBUG) * POSTURE_DEBUG
    if TPM.interface != 0 and handoff.tpm_state == TpmState.ABSENT.value:
        take_secret(handoff, header)
    elif handoff.tpm_state == TpmState.ABSENT.value:
        set_state(handoff, TpmState.ABSENT, u64(0))
    if handoff.tpm_state == TpmState.READY.value:
        posture |= POSTURE_TPM
    elif header.flags & FLAG_TPM_REQUIRED != 0:
        close_policies(text("refused"))
        require(Refusal(Rule.TPM_REQUIRED, u64(0), u64(TpmState.READY.value), u64(handoff.tpm_state)))
    elif has_development_secret(header):
        posture |= POSTURE_DEVELOPMENT_SECRET
        say(text("loader: DEVELOPMENT SECRET, mode debug: what follows proves the flow, not a machine"))
    else:
        say(text("loader: NO DEVICE SECRET, mode not configured: anybody can make what follows, NOT AUTHENTIC"))
    handoff.posture = posture | (u64(handoff.tpm_state) << TPM_STATE_SHIFT)

"""The approval table: policies of the TPM's device secret that the owner's policy key signed (docs/evidence.md).

Nothing of it is trusted here: the TPM checks the key's name, the signature and the policy.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import Array, Struct, array, u8, u32, u64

APPROVALS_MAGIC: Final = int.from_bytes(b"TRNAPRV1", "little")
APPROVAL_ROWS: Final = 32


class Approval(Struct, size=112):
    """One approved policy, and the ECDSA P-256 signature over its SHA-256."""

    pcrs: u32  # by bit
    reserved: u32
    counter_base: u64  # what the machine's floor counter is above the floor, modulo 2**64
    digest: Array[u8] = array(32)
    r: Array[u8] = array(32)
    s: Array[u8] = array(32)


class ApprovalTable(Struct, size=4096, align=8):
    """All of the entry. Unused rows and the rest are zero."""

    magic: u64
    count: u32
    reserved: u32
    x: Array[u8] = array(32)  # the policy key
    y: Array[u8] = array(32)
    rows: Array[Approval] = array(APPROVAL_ROWS)
    reserved_tail: Array[u8] = array(432)

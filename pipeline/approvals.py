"""The approval table, keys/approvals.bin: what may read a machine's device secret, signed with the owner's policy key (docs/evidence.md).

Its layout is `boot/approvals.py`; every image carries it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from boot.approvals import APPROVAL_ROWS, APPROVALS_MAGIC, ApprovalTable
from pipeline import event_log, layouts, tpm
from pipeline.errors import UsageError
from pipeline.event_log import Event
from pipeline.reference import BootReference

FILE: Final = "approvals.bin"
BIOS_MASK, UEFI_MASK = 1 << 4, 1 << 4 | 1 << 7  # PCRs that a device secret is bound to
NO_APPROVALS: Final = layouts.pack(ApprovalTable, {"magic": APPROVALS_MAGIC})


@dataclass(frozen=True)
class Approval:
    """PCR values and versions that may read a device secret, as the policy key signed them."""

    mask: int
    counter_base: int
    digest: bytes
    signature: tuple[int, int]

    def row(self) -> dict[str, Any]:
        """Its row of the table."""
        r, s = (number.to_bytes(32, "big") for number in self.signature)
        base = self.counter_base % (1 << 64)
        return {"pcrs": self.mask, "counter_base": base, "digest": self.digest, "r": r, "s": s}


def approve(
    policy: ec.EllipticCurvePrivateKey, mask: int, values: dict[int, bytes], counter_base: int, version: int
) -> Approval:
    """Approve a boot with these PCR values, of an image with this security version. Raises UsageError below any floor that there was."""
    if counter_base + version < 1:
        lowest = f"at least {1 - counter_base}, below which this machine's floor never was"
        raise UsageError(f"security version: expected {lowest}, found {version}")
    digest = tpm.approved_policy(mask, values, counter_base + version)
    signed = policy.sign(tpm.sha256(digest), ec.ECDSA(Prehashed(SHA256())))
    return Approval(mask, counter_base, digest, decode_dss_signature(signed))


def table(policy: ec.EllipticCurvePublicKey, rows: list[dict[str, Any]]) -> bytes:
    """A table of this policy key."""
    numbers = policy.public_numbers()
    x, y = (number.to_bytes(32, "big") for number in (numbers.x, numbers.y))
    return layouts.pack(ApprovalTable, {"magic": APPROVALS_MAGIC, "count": len(rows), "x": x, "y": y, "rows": rows})


def rows_of(data: bytes, place: object) -> list[dict[str, Any]]:
    """The rows of a table, which must be whole: no byte but what its rows say, each signed by its key. Raises UsageError naming `place`."""

    def refuse(what: str, expected: object, found: object) -> UsageError:
        return UsageError(f"{place}: approval table: {what}: expected {expected}, found {found}")

    if len(data) != len(NO_APPROVALS):
        raise refuse("size", f"{len(NO_APPROVALS)} bytes", len(data))
    fields = layouts.unpack(ApprovalTable, data)
    if fields["magic"] != APPROVALS_MAGIC:
        raise refuse("magic", NO_APPROVALS[:8], data[:8])
    count = fields["count"]
    if count > APPROVAL_ROWS:
        raise refuse("rows", f"at most {APPROVAL_ROWS}", count)
    rows = [
        {name: row[name] for name in ("pcrs", "counter_base", "digest", "r", "s")} for row in fields["rows"][:count]
    ]
    whole = layouts.pack(ApprovalTable, {name: fields[name] for name in ("magic", "count", "x", "y")} | {"rows": rows})
    different = [offset for offset in range(len(data)) if data[offset] != whole[offset]]
    if different:
        raise refuse(f"byte {different[0]}", "0: it is reserved", data[different[0]])
    for index, row in enumerate(rows):
        if not is_signed(row, fields["x"], fields["y"]):
            raise refuse(f"row {index}", "a signature by the table's policy key", "one that does not verify")
    return rows


def is_signed(row: dict[str, Any], x: bytes, y: bytes) -> bool:
    """Whether this key signed a row; a point that is none signed nothing."""
    r, s = (int.from_bytes(row[name], "big") for name in ("r", "s"))
    try:
        key = ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), ec.SECP256R1())
        key.public_key().verify(encode_dss_signature(r, s), tpm.sha256(row["digest"]), ec.ECDSA(Prehashed(SHA256())))
    except (InvalidSignature, ValueError):
        return False
    return True


def add(data: bytes, policy: ec.EllipticCurvePublicKey, approval: Approval, place: object = FILE) -> bytes:
    """The table with a row more, unless its digest is there; the oldest goes where it is full. Raises UsageError for another key's."""
    rows = rows_of(data, place)
    key = slice(16, 80)
    if data[key] != table(policy, [])[key]:
        found = "another's" if any(data[key]) else "none"
        raise UsageError(f"{place}: approval table: policy key: expected that of keys/provisioning, found {found}")
    if any(row["digest"] == approval.digest for row in rows):
        return data
    return table(policy, [*rows, approval.row()][-APPROVAL_ROWS:])


def load(folder: Path) -> bytes | None:
    """keys/approvals.bin, checked, or None where there is none. Raises UsageError."""
    path = folder / FILE
    if not path.exists():
        return None
    data = path.read_bytes()
    rows_of(data, path)
    return data


def write(data: bytes, folder: Path) -> None:
    """Replace keys/approvals.bin; complete or not at all."""
    temporary = folder / f".{FILE}"
    temporary.write_bytes(data)
    temporary.replace(folder / FILE)


def boot_values(log: bytes, boot: BootReference) -> tuple[int, dict[int, bytes]]:
    """The PCRs that the device secret of a machine is to be bound to for an image, as they are when the loader asks for it.

    `log`: of any boot of that machine, for what its firmware measures; what is measured of the image comes from its reference, so that
    an update can be approved before it ever booted. Raises EventLogError for a log of another way of booting.
    """
    events = event_log.before_end(log, event_log.parse(log))
    by_firmware = [event.kind == event_log.EV_EFI_BOOT_SERVICES_APPLICATION for event in events]
    if any(by_firmware):
        mask, kind, digests = UEFI_MASK, event_log.EV_EFI_BOOT_SERVICES_APPLICATION, [boot.application]
    else:
        mask, kind, digests = BIOS_MASK, event_log.EV_IPL, list(boot.stages)
    booted = [event for event in events if event.pcr == 4]
    places = [index for index, event in enumerate(booted) if event.kind == kind]
    if not places or places != list(range(places[0], places[0] + len(places))) or not all(digests):
        raise event_log.EventLogError(
            f"event log: expected one run of events of type {kind:#x} in PCR 4, found {places}"
        )
    loader = [Event(4, kind, {event_log.SHA256: bytes.fromhex(digest)}, b"") for digest in digests]
    others = [event for event in events if event.pcr != 4]
    values = event_log.replay([*others, *booted[: places[0]], *loader, *booted[places[-1] + 1 :]])
    return mask, {index: values[index] for index in range(24) if mask >> index & 1}

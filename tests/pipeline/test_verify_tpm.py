"""A chain that begins in a TPM: every link of it is held against the owner's CA, the quote and the reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import event_log, evidence, provision, tpm
from pipeline.evidence import Item, Kind
from pipeline.verify import Root, verify_evidence, verify_monitor
from pipeline.verify_certificates import VerificationError
from tests.pipeline.forge import NONCE, Machine, seed_key
from tests.pipeline.forge_tpm import LogEvent, TpmMachine, private_key, tagged

pytestmark = pytest.mark.t0


@pytest.mark.parametrize("firmware", ["uefi", "bios"])
def test_a_boot_with_a_tpm_is_verified(tmp_path: Path, firmware: str) -> None:
    """Up to the box, and up to the monitor alone; what the TPM said of the boot is in the verdict."""
    machine = TpmMachine(firmware)
    verdict = verify_evidence(machine.bundle(), machine.reference(tmp_path), NONCE)
    assert verdict.tpm is not None
    assert (verdict.tpm.firmware, verdict.tpm.reset_count, verdict.tpm.restart_count) == (firmware, 7, 1)
    assert [pcr.index for pcr in verdict.tpm.pcrs if pcr.compared] == [4, 8, 9]
    assert not any("development secret" in warning for warning in verdict.warnings)
    alone = verify_monitor(evidence.pack(machine.monitor_items()), machine.reference(tmp_path))
    assert [node.layer for node in alone.nodes][-2:] == ["device", "monitor"]
    assert alone.tpm == verdict.tpm


Change = Callable[[TpmMachine], None]


def put(name: str, value: object) -> Change:
    """Change an attribute."""
    return lambda machine: setattr(machine, name, value)


def event(index: int, change: Callable[[LogEvent], None]) -> Change:
    """Change an event; its digest follows its data unless the change sets it."""
    return lambda machine: change(machine.events[index])


def drop(index: int) -> Change:
    """Leave an event out."""
    return lambda machine: machine.events.__delitem__(index)


def insert(index: int, added: LogEvent) -> Change:
    """Add an event."""
    return lambda machine: machine.events.insert(index, added)


HEADER = (
    -9
)  # the loader's events: header, monitor, two descriptors, segment, release chain, development secret, approvals, end
CHANGES: list[tuple[str, Change, str]] = [
    (
        "another CA",
        put("authority", provision.OwnerKeys(seed_key("x"), private_key("x"))),
        "device certificate: signature",
    ),
    ("another attestation key signs", put("signer", private_key("x")), "quote: signature"),
    ("a key with other attributes than certified", put("attributes", tpm.AK_SET), "attestation key: name"),
    ("another label", put("label", b"terrane-chain-v0"), "quote: qualifying data"),
    ("a replayed quote of another boot", put("extra", bytes(32)), "quote: qualifying data"),
    ("fewer PCRs", put("mask", 0x0010), "quote: PCRs"),
    ("a log that is not the quote's", put("values_digest", bytes(32)), "quote: PCR digest"),
    ("another BOOTX64.EFI", event(8, lambda e: setattr(e, "digest", bytes(32))), "PCR 4: UEFI applications"),
    ("a second application", insert(9, LogEvent(4, 0x80000003, b"shim", bytes(32))), "PCR 4: UEFI applications"),
    ("another header", event(HEADER, lambda e: setattr(e, "data", e.data[:-1] + b"?")), "header: measured"),
    ("another monitor", event(HEADER + 1, lambda e: setattr(e, "data", e.data[:-1] + b"?")), "monitor: measured"),
    (
        "a digest that is not its data's",
        event(HEADER + 1, lambda e: setattr(e, "digest", bytes(32))),
        "digest of event",
    ),
    ("a row that was not measured", drop(HEADER + 2), "event log"),
    ("a row too many", insert(-1, tagged(9, event_log.TAG_CODE, b"more")), "number of the loader's events"),
    ("something else in PCR 9", insert(-1, LogEvent(9, 0x5, b"x")), "the loader's events alone"),
    ("no end event", drop(-1), "event log: structure"),
    ("two end events", insert(-1, tagged(4, event_log.TAG_END, b"x")), "event log: structure"),
    ("another seal", event(-1, lambda e: setattr(e, "data", e.data + bytes(32))), "event log: structure"),
    ("an event after the end", lambda m: m.events.append(LogEvent(4, 0x5, b"x")), "event log: structure"),
]


@pytest.mark.parametrize(("change", "failure"), [case[1:] for case in CHANGES], ids=[case[0] for case in CHANGES])
def test_what_differs_is_named(tmp_path: Path, change: Change, failure: str) -> None:
    """Every link, one change at a time, with everything else made to fit."""
    machine = TpmMachine()
    change(machine)
    with pytest.raises(VerificationError, match=failure):
        verify_evidence(machine.bundle(), machine.reference(tmp_path), NONCE)


@pytest.mark.parametrize("mask", [tpm.DECRYPT, tpm.RESTRICTED, tpm.SIGN, tpm.FIXED_TPM, tpm.FIXED_PARENT, tpm.ORIGIN])
def test_a_key_that_could_sign_anything_is_refused(tmp_path: Path, mask: int) -> None:
    """Even if the owner certified it."""
    machine = TpmMachine()
    machine.attributes ^= mask
    machine.certified_attributes = machine.attributes
    with pytest.raises(VerificationError, match="attestation key: attributes"):
        verify_evidence(machine.bundle(), machine.reference(tmp_path), NONCE)


def test_a_different_stage_is_refused(tmp_path: Path) -> None:
    """On a BIOS: boot sector, a block of stage 2, the loader."""
    for index in (8, 11, 15):
        machine = TpmMachine("bios")
        machine.events[index].digest = bytes(32)
        with pytest.raises(VerificationError, match="PCR 4: boot sector, stage 2 and loader"):
            verify_evidence(machine.bundle(), machine.reference(tmp_path), NONCE)


@pytest.mark.parametrize(
    "kind", [Kind.QUOTE, Kind.QUOTE_SIGNATURE, Kind.EVENT_LOG, Kind.DEVICE_CERTIFICATE, Kind.ATTESTATION_KEY]
)
def test_nothing_may_be_missing_or_twice(tmp_path: Path, kind: Kind) -> None:
    """Each item exactly once."""
    machine = TpmMachine()
    items = machine.items()
    for found in ([item for item in items if item.kind is not kind], [*items, *(i for i in items if i.kind is kind)]):
        with pytest.raises(VerificationError, match=f"number of {kind.words}"):
            verify_evidence(evidence.pack(found), machine.reference(tmp_path), NONCE)


def test_no_silent_way_down(tmp_path: Path) -> None:
    """Where the reference names the owner's CA, a chain that begins at the development secret is taken only when asked for."""
    machine, owned = Machine(), TpmMachine()
    machine.values["authority"] = owned.values["authority"]
    with pytest.raises(VerificationError, match="monitor: configuration: posture"):
        verify_evidence(machine.bundle(), machine.reference(tmp_path), NONCE)
    found = verify_evidence(machine.bundle(), machine.reference(tmp_path), NONCE, root=Root.DEVELOPMENT)
    assert any("development secret" in warning for warning in found.warnings)
    with pytest.raises(VerificationError, match="device: public key"):
        verify_evidence(owned.bundle(), owned.reference(tmp_path), NONCE, root=Root.DEVELOPMENT)


def test_a_root_that_the_reference_does_not_name_is_refused(tmp_path: Path) -> None:
    """`--root tpm` against a reference of a checkout that provisioned nothing."""
    machine = Machine()
    with pytest.raises(VerificationError, match="root: expected a reference with the owner's provisioning CA"):
        verify_evidence(machine.bundle(), machine.reference(tmp_path), NONCE, root=Root.TPM)


def test_every_flipped_bit_is_refused(tmp_path: Path) -> None:
    """One bit in each byte of quote, signature, log, certificate and key."""
    machine = TpmMachine()
    expected = machine.reference(tmp_path)
    items = machine.items()
    verify_evidence(evidence.pack(items), expected, NONCE)
    for place, item in enumerate(items):
        if item.kind < Kind.QUOTE:
            continue
        for offset in range(0, len(item.data), 1 if len(item.data) < 1000 else 7):
            data = bytearray(item.data)
            data[offset] ^= 1 << offset % 8
            changed = [*items[:place], Item(item.kind, bytes(data)), *items[place + 1 :]]
            with pytest.raises(VerificationError):
                verify_evidence(evidence.pack(changed), expected, NONCE)

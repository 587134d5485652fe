"""The verifier takes what a machine makes and refuses, by layer and field, everything else."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import chain, cli, der, evidence, report
from pipeline.arguments import parser
from pipeline.errors import UsageError
from pipeline.evidence import EvidenceError, Item, Kind
from pipeline.verify import verify_evidence
from pipeline.verify_certificates import VerificationError
from tests.pipeline.forge import BOX, NONCE, Machine

pytestmark = pytest.mark.t0
DICE = "1.3.6.1.4.1.11129.2.1.24"
ENDORSE = "2.25.329800735698586629295641978511506172918"


def test_what_a_machine_makes_is_verified(tmp_path: Path) -> None:
    """The tree names every layer and who signed it; the last line says VERIFIED and what it does not prove."""
    machine = Machine()
    verdict = verify_evidence(machine.bundle(), machine.reference(tmp_path), NONCE)
    assert [node.layer for node in verdict.nodes][-4:] == ["device", "monitor", "box witness", "endorsed key"]
    assert [node.signed_by for node in verdict.nodes][-3:] == ["device", "monitor", "box witness"]
    last = report.tree(verdict).splitlines()[-1]
    assert last.startswith("VERIFIED")
    assert "the development secret proves the flow, not a machine" in last


Change = Callable[[Machine], None]


def set_field(layer: str, name: str, value: object) -> Change:
    """Change a certificate's field."""
    return lambda machine: setattr(machine.fields[layer], name, value)


def set_dice(layer: str, name: str, value: object) -> Change:
    """Change a field of a DICE extension."""
    return lambda machine: setattr(machine.dice[layer], name, value)


def set_own(layer: str, *own: tuple[str, bool, bytes]) -> Change:
    """Replace a certificate's own extensions."""
    return lambda machine: setattr(machine.fields[layer], "own", list(own))


def bad_dice(change: Callable[[bytes], bytes]) -> Change:
    """Change the bytes of the monitor's DICE extension."""

    def apply(machine: Machine) -> None:
        machine.fields["monitor"].own = [(DICE, True, change(machine.dice["monitor"].value()))]

    return apply


def long_form(value: bytes) -> bytes:
    """The same element with a length that is not minimal."""
    content = der.only(value, der.SEQUENCE)
    return bytes([der.SEQUENCE, 0x83]) + len(content).to_bytes(3, "big") + content


def bind(data: bytes) -> Change:
    """Change what the endorsement binds."""
    return lambda machine: setattr(machine, "bound", data)


def signed_by(layer: str, signer: str) -> Change:
    """Have a certificate signed by another key."""
    return lambda machine: machine.signed_by.__setitem__(layer, signer)


def release_of_another_build(machine: Machine) -> None:
    """Take the release chain of a build with another monitor."""
    machine.release = Machine(monitor=b"other" * 500).release


def release_link(index: int, other: int) -> Change:
    """Put one release certificate in the place of another."""
    return lambda machine: machine.release.__setitem__(index, machine.release[other])


def flip(data: bytes, index: int) -> bytes:
    """The bytes with one bit changed."""
    return data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :]


CHANGES: list[tuple[str, Change, str, str]] = [
    ("nonce", bind(bytes(32) + bytes(64)), "endorsement", "nonce"),
    ("data", lambda machine: setattr(machine, "bound", NONCE + bytes(64)), "endorsement", "hash of the witness data"),
    ("size of data", lambda machine: setattr(machine, "data", b"other"), "endorsement", "witness data: size"),
    ("signature in data", lambda machine: setattr(machine, "data", bytes(96)), "endorsement", "witness data: signature"),
    ("short binding", bind(NONCE), "endorsement", "endorsement extension: size"),
    ("monitor code", set_dice("monitor", "code", bytes(64)), "monitor", "code hash"),
    ("box code", set_dice(BOX, "code", bytes(64)), "box witness", "code hash"),
    ("authority", set_dice(BOX, "authority", bytes(64)), "box witness", "authority hash"),
    ("mode", set_dice("monitor", "mode", 1), "monitor", "mode"),
    ("name", set_dice(BOX, "configuration", chain.configuration("debian", 1, 9)), "box witness", "configuration: name"),
    (
        "security version",
        set_dice("monitor", "configuration", chain.configuration(chain.MONITOR_NAME, 2, 9)),
        "monitor",
        "configuration: security version",
    ),
    (
        "posture",
        set_dice("monitor", "configuration", chain.configuration(chain.MONITOR_NAME, 1, 2)),
        "monitor",
        "configuration: posture",
    ),
    ("configuration hash", set_dice("monitor", "configuration_hash", bytes(64)), "monitor", "configuration hash"),
    ("trailing DER", bad_dice(lambda value: value + b"\0"), "monitor", "DICE extension"),
    ("long DER", bad_dice(long_form), "monitor", "DICE extension"),
    ("no DICE extension", set_own("monitor", ("1.2.3.4", True, b"\x05\x00")), "monitor", "extension 1.2.3.4"),
    ("DICE not critical", lambda m: set_own(BOX, (DICE, False, m.dice[BOX].value()))(m), "box witness", f"extension {DICE}"),
    (
        "unknown critical extension",
        lambda m: set_own(BOX, (DICE, True, m.dice[BOX].value()), ("1.2.3.4", True, b"\x05\x00"))(m),
        "box witness",
        "extension 1.2.3.4",
    ),
    ("endorsement not critical", set_own("endorsement", (ENDORSE, False, b"\x04\0")), "endorsement", f"extension {ENDORSE}"),
    ("serial", set_field("monitor", "serial", b"\x01" * 20), "monitor", "serial number"),
    ("subject", set_field("monitor", "subject", "00" * 20), "monitor", "subject"),
    ("issuer", set_field(BOX, "issuer", "00" * 20), "box witness", "issuer"),
    ("not after", set_field(BOX, "not_after", b"20301231235959Z"), "box witness", "not after"),
    ("authority identifier", set_field(BOX, "authority_identifier", bytes(20)), "box witness", "authority key identifier"),
    ("subject identifier", set_field(BOX, "subject_identifier", bytes(20)), "box witness", "subject key identifier"),
    ("usage", set_field("endorsement", "usage", bytes.fromhex("03020204")), "endorsement", "key usage"),
    ("box is no authority", set_field(BOX, "constraints", b"\x30\0"), "box witness", "basic constraints: CA"),
    ("leaf is an authority", set_field("endorsement", "constraints", bytes.fromhex("30030101ff")), "endorsement", "basic constraints: CA"),
    ("path length", set_field(BOX, "constraints", bytes.fromhex("30060101ff020100")), "box witness", "basic constraints: path length"),
    ("box signed by the device", signed_by(BOX, "device"), "box witness", "signature"),
    ("leaf signed by the monitor", signed_by("endorsement", "monitor"), "endorsement", "signature"),
    ("leaf signed by itself", signed_by("endorsement", "endorsement"), "endorsement", "signature"),
    ("device not self-signed", signed_by("device", "monitor"), "device", "signature"),
    ("release of another build", release_of_another_build, "release: monitor", "SHA-256"),
    ("no release boot link", release_link(1, 0), "release: boot loader", "subject"),
    ("release box of another name", release_link(4, 3), "release: box witness", "subject"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "layer", "name"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES])
def test_one_change_is_refused_by_its_field(tmp_path: Path, change: Change, layer: str, name: str) -> None:
    """One thing is wrong, everything else is as the machine made it."""
    machine = Machine()
    reference = machine.reference(tmp_path)
    change(machine)
    with pytest.raises(VerificationError) as caught:
        verify_evidence(machine.bundle(), reference, NONCE)
    assert (caught.value.layer, caught.value.field) == (layer, name)
    assert caught.value.expected != caught.value.got


def test_replayed_evidence_is_refused(tmp_path: Path) -> None:
    """Evidence for one nonce does not answer another."""
    machine = Machine()
    with pytest.raises(VerificationError, match="endorsement: nonce: expected ffff") as caught:
        verify_evidence(machine.bundle(), machine.reference(tmp_path), b"\xff" * 32)
    assert caught.value.got == NONCE.hex()


def test_another_build_is_refused_by_field(tmp_path: Path) -> None:
    """Evidence of a build with another witness names the box; with another monitor, the monitor."""
    reference = Machine().reference(tmp_path)
    with pytest.raises(VerificationError, match="release: box witness: SHA-256"):
        verify_evidence(Machine(descriptor=b"x" * 4096).bundle(), reference, NONCE)
    with pytest.raises(VerificationError, match="release: monitor: SHA-256"):
        verify_evidence(Machine(monitor=b"x" * 4096).bundle(), reference, NONCE)


def test_another_device_is_refused(tmp_path: Path) -> None:
    """The whole chain under another secret is another machine's."""
    machine = Machine()
    reference = machine.reference(tmp_path)
    machine.secret = bytes(32)
    machine.derive()
    with pytest.raises(VerificationError, match="device: public key"):
        verify_evidence(machine.bundle(), reference, NONCE)


def test_every_flipped_bit_of_a_certificate_is_refused(tmp_path: Path) -> None:
    """A sample of positions over each certificate of the bundle."""
    machine = Machine()
    reference = machine.reference(tmp_path)
    items = machine.items()
    for number, item in enumerate(items):
        for position in range(0, len(item.data), 13):
            changed = [*items[:number], Item(item.kind, flip(item.data, position)), *items[number + 1 :]]
            with pytest.raises(VerificationError):
                verify_evidence(evidence.pack(changed), reference, NONCE)


def test_mode_zero_needs_the_flag_and_is_not_authentic(tmp_path: Path) -> None:
    """The all-zero secret is everyone's: refused, or accepted in words that do not say VERIFIED."""
    machine = Machine()
    machine.values["mode"] = 0
    for dice in machine.dice.values():
        dice.mode = 0
    reference = machine.reference(tmp_path)
    with pytest.raises(VerificationError, match="device: mode"):
        verify_evidence(machine.bundle(), reference, NONCE)
    verdict = verify_evidence(machine.bundle(), reference, NONCE, allow_unprovisioned=True)
    last = report.tree(verdict).splitlines()[-1]
    assert last.startswith("NOT AUTHENTIC")
    assert "VERIFIED" not in last
    assert not report.is_verified(verdict)


def without(items: list[Item], kind: Kind) -> list[Item]:
    """The items but those of a kind."""
    return [item for item in items if item.kind is not kind]


@pytest.mark.parametrize("kind", [Kind.DEVICE, Kind.MONITOR, Kind.BOX, Kind.ENDORSEMENT, Kind.RELEASE])
def test_a_missing_item_is_named(tmp_path: Path, kind: Kind) -> None:
    """Each kind of certificate must be there."""
    machine = Machine()
    with pytest.raises(VerificationError, match=f"evidence: number of {kind.name.lower()} certificates"):
        verify_evidence(evidence.pack(without(machine.items(), kind)), machine.reference(tmp_path), NONCE)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", "expected the magic b'TRNEVID1', found b''"),
        (lambda data: b"X" + data[1:], "expected the magic"),
        (lambda data: data[:12], "expected a head of 16 bytes, found 12"),
        (lambda data: data[:8] + b"\2" + data[9:], "expected version 1, found 2"),
        (lambda data: data[:12] + b"\xff\xff\0\0" + data[16:], "expected at most 64 items, found 65535"),
        (lambda data: data[:16] + b"\x0c" + data[17:], "expected a kind from 1 to 11, found 12"),
        (lambda data: data[:-1], "bytes, found"),
        (lambda data: data + b"\0", "found 1 bytes more"),
    ],
)
def test_malformed_evidence_is_described(damage: Callable[[bytes], bytes], message: str) -> None:
    """Each malformation has an error that says what was expected and found."""
    with pytest.raises(EvidenceError, match=re.escape(message)):
        evidence.parse(damage(Machine().bundle()))


def verb(*arguments: str) -> int:
    """Run `verify` as the command line does."""
    return cli.perform(parser().parse_args(["verify", *arguments]))


def test_the_command_takes_binary_and_hex(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both forms of a bundle verify; --certificates writes what openssl reads."""
    machine = Machine()
    machine.reference(tmp_path)
    expect = str(tmp_path / "terrane.json")
    binary, text = tmp_path / "evidence.bin", tmp_path / "evidence.txt"
    binary.write_bytes(machine.bundle())
    text.write_text("\n".join(re.findall(".{1,64}", machine.bundle().hex())))
    for path in (binary, text):
        assert verb(str(path), "--expect", expect, "--nonce", NONCE.hex()) == 0
    assert "VERIFIED" in capsys.readouterr().out
    with pytest.raises(UsageError, match="--nonce: expected 64 hex digits"):
        verb(str(binary), "--expect", expect, "--nonce", "xyz")
    with pytest.raises(UsageError, match="cannot read it"):
        verb(str(tmp_path / "absent"), "--expect", expect, "--nonce", NONCE.hex())


def test_openssl_verifies_the_certificates(tmp_path: Path) -> None:
    """`openssl verify -ignore_critical` takes the run-time chain, and the release chain without that."""
    machine = Machine()
    verdict = verify_evidence(machine.bundle(), machine.reference(tmp_path), NONCE)
    report.write_certificates(verdict, tmp_path)
    run_time = ["-ignore_critical", "-CAfile", "device.pem", "-untrusted", "run-time-chain.pem", "endorsement.pem"]
    (tmp_path / "middle.pem").write_text(
        (tmp_path / "release-1.pem").read_text() + (tmp_path / "release-2.pem").read_text()
    )
    released = ["-CAfile", "release-0.pem", "-untrusted", "middle.pem", "release-3.pem"]
    for arguments in (run_time, released):
        result = subprocess.run(
            ["openssl", "verify", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr

"""Loader, monitor, witness and intruder on several processors; and what the verifier says of the witness's real evidence."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from pipeline import evidence
from pipeline.evidence import Kind
from pipeline.verify import verify_evidence
from pipeline.verify_certificates import VerificationError
from tests.boot.machine import boot
from tests.system import made
from tests.system.machine import BOCHS, Running
from tests.system.made import INTRUDER, WITNESS, Made

pytestmark = [pytest.mark.t2, pytest.mark.slow, pytest.mark.skipif(BOCHS is None, reason="Bochs is not installed")]
PROCESSORS = (
    "broadwell_ult",
    "corei7_skylake_x",
    "corei7_icelake_u",
)  # an earlier one lacks ADX, which the loader asks for
NONCE, LATER_NONCE = b"\x11" * 32, b"\x22" * 32


@dataclasses.dataclass(frozen=True)
class Ran:
    """One run: the evidence for each nonce, and what each box said."""

    image: Made
    bundles: dict[bytes, bytes]
    said: dict[str, str]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made.make(tmp_path_factory.mktemp("image"), [WITNESS, INTRUDER])


@pytest.fixture(scope="module", params=PROCESSORS)
def ran(image: Made, request: pytest.FixtureRequest) -> Ran:
    """A run until the intruder is done; evidence is asked for before and after."""
    with Running(image, cpu=request.param) as machine:
        machine.wait_text("witness", "witness ready")
        bundles = {NONCE: machine.evidence("witness", NONCE)}
        machine.wait_text("intruder", "intruder done")
        bundles[LATER_NONCE] = machine.evidence("witness", LATER_NONCE)
        machine.type("witness", "canaries")
        machine.wait_text("witness", "witness canaries intact", count=3)
        return Ran(image, bundles, {name: machine.said(name) for name in ("witness", "intruder", "terrane")})


def test_the_evidence_is_verified(ran: Ran) -> None:
    """Before and after the intruder, the chain ends in the key that the witness made, over the nonce, with intact canaries."""
    for nonce, bundle in ran.bundles.items():
        verdict = verify_evidence(bundle, ran.image.expected, nonce, "witness")
        assert (verdict.mode, verdict.posture, verdict.report) == (2, 9, "canaries intact")


def test_the_intruder_finds_nothing(ran: Ran) -> None:
    """It tried thousands of things; no canary, no breach."""
    said = ran.said["intruder"]
    numbers = {name: int(count) for name, count in re.findall(r"intruder: ([a-z -]+?) (\d+)", said)}
    assert numbers["canaries found"] == 0
    assert numbers["breaches"] == 0
    assert numbers["msr reads"] > 16384
    assert numbers["ports"] == 65536
    assert numbers["guest-physical reads"] > 8192
    assert numbers["words of memory searched"] == 4 * made.MEBIBYTE // 8
    refused = re.search(r"vmx and smx instructions (\d+) refused (\d+)", said)
    assert refused is not None
    assert refused[1] == refused[2] != "0"


def test_nothing_was_lost_and_nobody_else_stopped(ran: Ran) -> None:
    """The monitor reports no lost output, no failed check; the witness never stopped."""
    said = ran.said["terrane"]
    assert "lost" not in said
    assert "failed check" not in said
    assert "box witness stopped" not in said


def test_old_evidence_is_refused(ran: Ran) -> None:
    """Evidence for an earlier nonce does not answer a new one, though all of it is genuine; nor does a mixture."""
    with pytest.raises(VerificationError) as caught:
        verify_evidence(ran.bundles[NONCE], ran.image.expected, LATER_NONCE, "witness")
    assert (caught.value.layer, caught.value.field) == ("endorsement", "nonce")
    assert (caught.value.expected, caught.value.got) == (LATER_NONCE.hex(), NONCE.hex())
    new = {item.kind: item for item in evidence.parse(ran.bundles[LATER_NONCE])}
    mixed = [
        new[Kind.ENDORSEMENT] if item.kind is Kind.ENDORSEMENT else item for item in evidence.parse(ran.bundles[NONCE])
    ]
    with pytest.raises(VerificationError):
        verify_evidence(evidence.pack(mixed), ran.image.expected, LATER_NONCE, "witness")


def test_evidence_of_another_build_is_refused(ran: Ran, tmp_path: Path) -> None:
    """Another monitor, another witness: the verifier names the layer, and the field with both values."""
    data = bytearray(made.monitor())
    data[-1] ^= 1
    other = made.make(tmp_path, [WITNESS, INTRUDER], other_monitor=bytes(data)).expected
    with pytest.raises(VerificationError) as caught:
        verify_evidence(ran.bundles[NONCE], other, NONCE, "witness")
    assert (caught.value.layer, caught.value.field) == ("release: monitor", "SHA-256")
    assert caught.value.expected == other.monitor.sha256
    assert caught.value.got == ran.image.expected.monitor.sha256
    boxes = tuple(dataclasses.replace(box, sha256="00" * 32) for box in ran.image.expected.boxes)
    with pytest.raises(VerificationError) as caught:
        verify_evidence(ran.bundles[NONCE], dataclasses.replace(ran.image.expected, boxes=boxes), NONCE, "witness")
    assert (caught.value.layer, caught.value.field) == ("release: box witness", "SHA-256")


def test_run_time_evidence_of_another_build_is_refused_without_its_release_chain(ran: Ran, tmp_path: Path) -> None:
    """Even with the release chain of the expected build, the machine's own certificates give another monitor away."""
    data = bytearray(made.monitor())
    data[-1] ^= 1
    image = made.make(tmp_path, [WITNESS, INTRUDER], other_monitor=bytes(data))
    links = made.release_links(image, "witness")
    kept = [item for item in evidence.parse(ran.bundles[NONCE]) if item.kind is not Kind.RELEASE]
    bundle = evidence.pack([*kept, *(evidence.Item(Kind.RELEASE, link) for link in links)])
    with pytest.raises(VerificationError) as caught:
        verify_evidence(bundle, image.expected, NONCE, "witness")
    assert caught.value.layer == "monitor"


def lines_of(serial: str) -> list[str]:
    return serial.replace("\r", "").splitlines()


def test_a_processor_without_vt_x_is_refused(image: Made, tmp_path: Path) -> None:
    """All that the loader asks for is there, VMX is not: the monitor says which check failed, and starts no box."""
    outcome = boot(tmp_path, image.path.read_bytes(), until="cannot run boxes", model="ryzen")
    said = lines_of(outcome.serial)
    assert re.fullmatch(
        r"terrane\| refused: the processor has no VT-x, or it is hidden: CPUID leaf 1, ECX bit 5; found 0x[0-9a-f]{16}",
        next(line for line in said if "refused" in line),
    )
    assert not [line for line in said if line.startswith(("witness", "intruder"))]

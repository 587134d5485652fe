"""The verifier: checks an evidence bundle against expected identities and a nonce, link by link (docs/evidence.md, docs/formats.md).

Importable: `verify_evidence` and `verify_monitor` return a Verdict or raise VerificationError, which names layer, field, what was
expected and what was found. Everything that the documents say of an item is checked; anything more or less in it is a failure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum

from cryptography.exceptions import InvalidSignature

from dsl.std.x509 import DICE_EXTENSION, ENDORSEMENT_EXTENSION
from pipeline import chain, der, evidence
from pipeline.evidence import Kind
from pipeline.reference import LayerReference, Reference
from pipeline.verify_certificates import (
    DIGITAL_SIGNATURE,
    KEY_CERT_SIGN,
    SIGNATURE_SIZE,
    Certified,
    Node,
    VerificationError,
    check_certificate,
    require,
)
from pipeline.verify_release import verify_release_chain
from pipeline.verify_tpm import TPM_ITEMS, TPM_LAYERS, TpmFacts, verify_tpm

NONCE_SIZE = 32  # bytes
REPORT_SIZE = 32  # bytes: zero-padded text
LEAF_LAYER = "endorsed key"
AS_BUILT = "the signed row, configuration and mode of this build"
RUN_TIME = (Kind.DEVICE, Kind.MONITOR, Kind.BOX, Kind.ENDORSEMENT)


class Root(Enum):
    """Where the run-time chain begins: at a device secret in a TPM, certified by the owner, or at the one that the image carries."""

    TPM = "tpm"
    DEVELOPMENT = "development"


@dataclass(frozen=True)
class Verdict:
    """What was verified. `certificates`: DER by name, for other tools. `box`, `nonce`, `report`: empty where no box was asked for."""

    nodes: tuple[Node, ...]
    box: str
    nonce: str
    report: str  # what the box's program says
    mode: int
    posture: int
    warnings: tuple[str, ...]
    certificates: dict[str, bytes] = field(default_factory=dict)
    tpm: TpmFacts | None = None


@dataclass(frozen=True)
class Expected:
    """What a machine must show: the reference, and at which root."""

    reference: Reference
    root: Root

    @property
    def posture(self) -> int:
        """The posture of every layer."""
        if self.root is Root.DEVELOPMENT:
            return self.reference.posture
        return (
            self.reference.posture & chain.POSTURE_DEBUG | chain.POSTURE_TPM | chain.TPM_READY << chain.TPM_STATE_SHIFT
        )

    @property
    def mode(self) -> int:
        """The mode of every layer."""
        if self.root is Root.DEVELOPMENT:
            return self.reference.mode
        return chain.MODE_DEBUG if self.posture & chain.POSTURE_DEBUG else chain.MODE_NORMAL

    def configuration(self, layer: LayerReference) -> bytes:
        """A layer's configuration descriptor."""
        return chain.configuration(layer.name, layer.security_version, self.posture)


def root_of(reference: Reference, root: Root | None) -> Root:
    """The root that is asked for: by default the owner's, where the reference names one. Raises VerificationError where it cannot be."""
    chosen = root or (Root.TPM if reference.authority or not reference.device_key else Root.DEVELOPMENT)
    if chosen is Root.TPM and not reference.authority:
        raise VerificationError("device", "root", "a reference with the owner's provisioning CA", "one without")
    if chosen is Root.DEVELOPMENT and not reference.device_key:
        raise VerificationError("device", "root", "a build that carries a development secret", "a release")
    return chosen


def verify_evidence(
    data: bytes,
    reference: Reference,
    nonce: bytes,
    box: str | None = None,
    allow_unprovisioned: bool = False,
    root: Root | None = None,
) -> Verdict:
    """Verify a box's bundle. Raises VerificationError or EvidenceError. `box`: None takes the reference's only closed box.

    `allow_unprovisioned` accepts mode 0, the all-zero device secret that anyone can forge. `root`: see `root_of`.
    """
    wanted = reference.box(box)
    with tracing() as nodes:
        require("nonce", "size", NONCE_SIZE, len(nonce))
        expected = Expected(reference, root_of(reference, root))
        items = sorted_items(evidence.parse(data), RUN_TIME)
        machine = verify_machine(items, expected, wanted, allow_unprovisioned, nodes)
        guest = verify_layer(items[Kind.BOX][0], machine.monitor, expected, wanted)
        mode, layer = chain.MODES[expected.mode], f"box {wanted.name}"
        nodes.append(Node(layer, wanted.sha256, guest.public_key.hex(), mode, "monitor", 2, AS_BUILT))
        leaf = verify_endorsement(items[Kind.ENDORSEMENT][0], guest, nonce, items[Kind.WITNESS_DATA])
        nodes.append(Node(LEAF_LAYER, "", leaf.public_key.hex(), mode, layer, 3, "the nonce; the report's signature"))
    words = items[Kind.WITNESS_DATA][0][:REPORT_SIZE].rstrip(b"\0").decode("ascii", "backslashreplace")
    return verdict_of(expected, machine, nodes, items, wanted.name, nonce.hex(), words)


def verify_monitor(
    data: bytes, reference: Reference, allow_unprovisioned: bool = False, root: Root | None = None
) -> Verdict:
    """Verify a monitor's bundle, made where no box can run: the chain up to the monitor. Raises as `verify_evidence` does.

    There is no nonce in it: with a TPM the quote's counters say which boot it was.
    """
    with tracing() as nodes:
        expected = Expected(reference, root_of(reference, root))
        items = sorted_items(evidence.parse(data), (Kind.DEVICE, Kind.MONITOR))
        machine = verify_machine(items, expected, None, allow_unprovisioned, nodes)
    return verdict_of(expected, machine, nodes, items, "", "", "")


@contextmanager
def tracing() -> Iterator[list[Node]]:
    """A list for what is verified; a failure takes along what is in it by then."""
    nodes: list[Node] = []
    try:
        yield nodes
    except VerificationError as error:
        error.nodes = tuple(nodes)
        raise


@dataclass(frozen=True)
class Machine:
    """What was verified below the boxes."""

    monitor: Certified
    tpm: TpmFacts | None


def verify_machine(
    items: dict[Kind, list[bytes]],
    expected: Expected,
    box: LayerReference | None,
    allow_unprovisioned: bool,
    nodes: list[Node],
) -> Machine:
    """Release chain, device, TPM and monitor."""
    reference = expected.reference
    if expected.mode == chain.MODE_NOT_CONFIGURED and not allow_unprovisioned:
        raise VerificationError("device", "mode", "a configured device secret", "mode 0, which anyone can forge")
    verify_release_chain(items[Kind.RELEASE], reference, box, nodes)
    device = check_certificate("device", items[Kind.DEVICE][0], None, KEY_CERT_SIGN, set())
    key, mode = device.public_key.hex(), chain.MODES[expected.mode]
    if expected.root is Root.DEVELOPMENT:
        require("device", "public key", reference.device_key.hex(), key)
        nodes.append(Node("device", "", key, mode, "itself", 0, "the key in the reference"))
    else:
        nodes.append(Node("device", "", key, mode, "itself", 0, "the owner's certificate, in the TPM's chain"))
    monitor = verify_layer(items[Kind.MONITOR][0], device, expected, reference.monitor)
    nodes.append(Node("monitor", reference.monitor.sha256, monitor.public_key.hex(), mode, "device", 1, AS_BUILT))
    if expected.root is Root.DEVELOPMENT:
        return Machine(monitor, None)
    return Machine(monitor, verify_tpm(items, reference, device.public_key, monitor.public_key, nodes))


def verdict_of(
    expected: Expected,
    machine: Machine,
    nodes: list[Node],
    items: dict[Kind, list[bytes]],
    box: str,
    nonce: str,
    report: str,
) -> Verdict:
    """Everything that was verified, in one value."""
    certificates = {kind.name.lower(): items[kind][0] for kind in RUN_TIME if items[kind]}
    certificates |= {f"release-{index}": link for index, link in enumerate(items[Kind.RELEASE])}
    warnings = warnings_of(expected)
    ordered = sorted(
        nodes, key=lambda node: not node.layer.startswith("release:") and 1 + (node.layer not in TPM_LAYERS)
    )
    return Verdict(
        tuple(ordered), box, nonce, report, expected.mode, expected.posture, warnings, certificates, machine.tpm
    )


def sorted_items(items: list[evidence.Item], needed: tuple[Kind, ...]) -> dict[Kind, list[bytes]]:
    """The items by kind: one of each certificate that is needed, four release certificates, at most one of everything else."""
    found: dict[Kind, list[bytes]] = {kind: [] for kind in Kind}
    for item in items:
        found[item.kind].append(item.data)
    for kind in RUN_TIME:
        require("evidence", f"number of {kind.name.lower()} certificates", int(kind in needed), len(found[kind]))
    require("evidence", "number of release certificates", 4 if Kind.BOX in needed else 3, len(found[Kind.RELEASE]))
    for kind in (Kind.WITNESS_DATA, *TPM_ITEMS):
        if len(found[kind]) > 1:
            raise VerificationError("evidence", f"number of {kind.words}", "at most 1", len(found[kind]))
    return found


def warnings_of(expected: Expected) -> tuple[str, ...]:
    """What the verdict does not prove."""
    warnings = []
    if expected.mode == chain.MODE_NOT_CONFIGURED:
        warnings.append("NOT AUTHENTIC: mode 0 means an all-zero device secret; anyone can make this evidence")
    if expected.posture & chain.POSTURE_DEVELOPMENT_SECRET:
        warnings.append(
            "the development secret proves the flow, not a machine: whoever has this checkout's keys/ can make this evidence"
        )
    elif expected.posture & chain.POSTURE_DEBUG:
        warnings.append("the monitor is a debug build")
    return tuple(warnings)


@dataclass(frozen=True)
class DiceExtension:
    """The fields of the Open DICE extension that this chain carries."""

    code_hash: bytes
    configuration_hash: bytes
    configuration: bytes
    authority_hash: bytes
    mode: int


def parse_dice_extension(layer: str, value: bytes) -> DiceExtension:
    """Read the extension: SEQUENCE of EXPLICIT [0], [2], [3], [4] OCTET STRING and [6] ENUMERATED, strict DER."""

    def explicit(rest: bytes, number: int, tag: int) -> tuple[bytes, bytes]:
        wrapped, rest = der.take(rest, der.EXPLICIT + number)
        return der.only(wrapped, tag), rest

    try:
        rest = der.only(value, der.SEQUENCE)
        code, rest = explicit(rest, 0, der.OCTET_STRING)
        configuration_hash, rest = explicit(rest, 2, der.OCTET_STRING)
        configuration, rest = explicit(rest, 3, der.OCTET_STRING)
        authority, rest = explicit(rest, 4, der.OCTET_STRING)
        mode, rest = explicit(rest, 6, der.ENUMERATED)
        if rest:
            raise der.DerError(f"expected nothing after the mode, found {len(rest)} bytes")
        return DiceExtension(code, configuration_hash, configuration, authority, der.number(mode))
    except der.DerError as error:
        raise VerificationError(layer, "DICE extension", "strict DER as docs/formats.md has it", error) from None


def verify_layer(data: bytes, parent: Certified, expected: Expected, wanted: LayerReference) -> Certified:
    """A layer's certificate: everything measured must be what was built. The key follows from the device secret: where that is the
    development secret, it is known, otherwise the parent's signature vouches for it.
    """
    reference = expected.reference
    layer = "monitor" if wanted is reference.monitor else f"box {wanted.name}"
    certified = check_certificate(layer, data, parent, KEY_CERT_SIGN, {DICE_EXTENSION})
    found = parse_dice_extension(layer, certified.extensions[DICE_EXTENSION])
    require(layer, "mode", mode_name(expected.mode), mode_name(found.mode))
    check_configuration(layer, expected.configuration(wanted), found)
    require(layer, "code hash", chain.sha512(wanted.row).hex(), found.code_hash.hex())
    require(layer, "authority hash", chain.sha512(reference.header_key).hex(), found.authority_hash.hex())
    if expected.root is Root.DEVELOPMENT:
        require(layer, "public key", wanted.public_key.hex(), certified.public_key.hex())
    return certified


def mode_name(mode: int) -> str:
    """A mode as number and word."""
    return f"{mode} ({chain.MODES.get(mode, 'unknown')})"


def check_configuration(layer: str, expected: bytes, found: DiceExtension) -> None:
    """The configuration descriptor, field by field, then as a whole, then its hash."""
    fields: dict[str, Callable[[bytes], object]] = {
        "name": lambda data: data[8:40].rstrip(b"\0").decode("ascii", "replace"),
        "security version": lambda data: int.from_bytes(data[46:54], "big"),
        "posture": lambda data: chain.posture_text(int.from_bytes(data[60:68], "big")),
    }
    require(layer, "configuration descriptor: size", len(expected), len(found.configuration))
    for name, read in fields.items():
        require(layer, f"configuration: {name}", read(expected), read(found.configuration))
    require(layer, "configuration descriptor", expected.hex(), found.configuration.hex())
    require(layer, "configuration hash", chain.sha512(found.configuration).hex(), found.configuration_hash.hex())


def verify_endorsement(data: bytes, box: Certified, nonce: bytes, witness_data: list[bytes]) -> Certified:
    """The leaf: the box vouches for a key of its own program, this nonce and its data."""
    layer = "endorsement"
    certified = check_certificate(layer, data, box, DIGITAL_SIGNATURE, {ENDORSEMENT_EXTENSION})
    try:
        bound = der.only(certified.extensions[ENDORSEMENT_EXTENSION], der.OCTET_STRING)
    except der.DerError as error:
        raise VerificationError(layer, "endorsement extension", "a DER OCTET STRING", error) from None
    require(layer, "endorsement extension: size", NONCE_SIZE + 64, len(bound))
    require(layer, "nonce", nonce.hex(), bound[:NONCE_SIZE].hex())
    data = b"".join(witness_data)
    require(layer, "hash of the witness data", bound[NONCE_SIZE:].hex(), chain.sha512(data).hex())
    require(layer, "witness data: size", REPORT_SIZE + SIGNATURE_SIZE, len(data))
    try:
        certified.key.verify(data[REPORT_SIZE:], data[:REPORT_SIZE] + nonce)
    except InvalidSignature:
        wanted = f"a signature over report and nonce by the endorsed key {certified.public_key.hex()}"
        raise VerificationError(layer, "witness data: signature", wanted, "one that does not verify") from None
    return certified

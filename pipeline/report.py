"""Show a verdict: as a tree for people, as JSON for programs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pipeline import chain
from pipeline.errors import PipelineError
from pipeline.verify import Verdict
from pipeline.verify_certificates import Node, VerificationError


def short(text: str) -> str:
    """The first 16 hex digits, or a dash."""
    return f"{text[:16]}.." if text else "-"


def tree_line(node: Node) -> str:
    """One layer: indented, with its hash, key, mode and signer."""
    title = "   " * node.depth + ("└─ " if node.depth else "") + node.layer
    return f"{title:44} hash {short(node.sha256):18} key {short(node.public_key):18} mode {node.mode:8} signed by {node.signed_by}"


def tree(verdict: Verdict) -> str:
    """The whole chain, the closing word included."""
    lines = [tree_line(node) for node in verdict.nodes]
    lines.append("")
    if verdict.tpm is not None:
        found = verdict.tpm
        lines.append(
            f"boot     from {found.firmware.upper()}, reset {found.reset_count}, restart {found.restart_count} of this TPM"
        )
    if verdict.box:
        lines.append(f"nonce    {verdict.nonce}")
        lines.append(f"report   {verdict.report!r}, signed by the endorsed key")
    lines.append(f"posture  {chain.posture_text(verdict.posture)}")
    lines.append(closing_line(verdict))
    return "\n".join(lines)


def is_verified(verdict: Verdict) -> bool:
    """Whether the chain begins at a secret that not everyone knows."""
    return verdict.mode != chain.MODE_NOT_CONFIGURED


def closing_line(verdict: Verdict) -> str:
    """The last line: VERIFIED, and what it does not prove."""
    if not is_verified(verdict):
        return verdict.warnings[0]
    return "VERIFIED" + "".join(f" ({warning})" for warning in verdict.warnings)


def verdict_json(verdict: Verdict) -> str:
    """The verdict for programs."""
    values = {
        "verified": is_verified(verdict),
        "box": verdict.box,
        "nonce": verdict.nonce,
        "mode": chain.MODES[verdict.mode],
        "posture": chain.posture_text(verdict.posture),
        "report": verdict.report,
        "layers": [asdict(node) for node in verdict.nodes],
        "warnings": list(verdict.warnings),
    }
    return json.dumps(values, indent=1)


def failure_json(error: PipelineError) -> str:
    """A failure for programs: with layer and field where it is the verifier's."""
    values: dict[str, object] = {"verified": False, "message": str(error)}
    if isinstance(error, VerificationError):
        values |= {"layer": error.layer, "field": error.field, "expected": error.expected, "got": error.got}
    return json.dumps(values, indent=1)


def write_certificates(verdict: Verdict, folder: Path) -> None:
    """Write every certificate as PEM, and the two chains as bundles for `openssl verify`."""
    folder.mkdir(parents=True, exist_ok=True)
    pem = {
        name: x509.load_der_x509_certificate(data).public_bytes(Encoding.PEM)
        for name, data in verdict.certificates.items()
    }
    for name, text in pem.items():
        (folder / f"{name}.pem").write_bytes(text)
    (folder / "run-time-chain.pem").write_bytes(pem["monitor"] + pem["box"])

"""Which inputs each build of this checkout had, so that the verifier can say what accounts for a difference.

A build leaves out/history/<SHA-256 of its image>.json: the signed rows of its header, and the SHA-256 of every input file.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from dsl.std.x509 import DICE_EXTENSION
from pipeline import chain, der, evidence, paths
from pipeline.evidence import Kind

FOLDER: Final = paths.OUT / "history"
KEPT: Final = 32  # builds
SHOWN: Final = 12  # files of a difference
PATTERNS: Final = ("dsl/**/*.py", "boot/**/*", "vmm/**/*.py", "guests/**/*", "pipeline/**/*.py", "keys/approvals.bin")


def inputs(root: Path = paths.ROOT) -> dict[str, str]:
    """Every file that a build may read, by its path in the checkout: SHA-256."""
    found = {path for pattern in PATTERNS for path in root.glob(pattern)}
    files = sorted(path for path in found if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def record(values: dict[str, Any], folder: Path = FOLDER, root: Path = paths.ROOT) -> None:
    """Keep what a build was made of; the oldest go where there are too many. `values`: of its reference file."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = {entry["name"]: entry["row"] for entry in values["boot"]["entries"]}
    text = json.dumps({"rows": rows, "inputs": inputs(root)}, indent=1)
    (folder / f"{values['image_sha256']}.json").write_text(text)
    for old in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
        old.unlink()


def load(path: Path) -> dict[str, dict[str, str]] | None:
    """A record; None for one that is missing or damaged."""
    try:
        values = json.loads(path.read_text())
        return {name: dict(values[name]) for name in ("rows", "inputs")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def code_hashes(bundle: bytes) -> dict[str, bytes]:
    """The code hash in each layer's certificate. What cannot be read is left out: the verifier has said what is wrong with it."""
    hashes = {}
    for item in evidence.parse(bundle):
        if item.kind in (Kind.MONITOR, Kind.BOX):
            try:
                parsed = x509.load_der_x509_certificate(item.data)
                value = parsed.extensions.get_extension_for_oid(x509.ObjectIdentifier(DICE_EXTENSION)).value
                content = der.only(value.public_bytes(), der.SEQUENCE)
                hashes[item.kind.words] = der.only(der.take(content, der.EXPLICIT)[0], der.OCTET_STRING)
            except Exception:
                continue
    return hashes


def differences(bundle: bytes, image_sha256: str, folder: Path = FOLDER) -> list[str]:
    """What accounts for evidence that is not of the reference's build, in lines; nothing where the reference is no local build."""
    expected = load(folder / f"{image_sha256}.json")
    found = code_hashes(bundle)
    if expected is None or not found:
        return []
    known = {chain.sha512(bytes.fromhex(row)) for row in expected["rows"].values()}
    strange = {name: code for name, code in found.items() if code not in known}
    if not strange:
        return ["Every layer's code is that of the reference's build: the difference is elsewhere."]
    for path in sorted(folder.glob("*.json"), key=lambda each: each.stat().st_mtime, reverse=True):
        other = load(path)
        if other and {chain.sha512(bytes.fromhex(row)) for row in other["rows"].values()} >= set(found.values()):
            return [
                f"The evidence is of another build of this checkout ({path.stem[:16]}..); other there: {', '.join(strange)}.",
                *changed(other["inputs"], expected["inputs"]),
            ]
    return [f"No build of this checkout that out/history still knows has this {' and this '.join(strange)}."]


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """The input files in which two builds differ."""
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    kinds = [
        (name, "changed" if name in before and name in after else "added" if name in after else "removed")
        for name in names
    ]
    lines = [f"  {name}: {kind} between that build and the reference's" for name, kind in kinds[:SHOWN]]
    if len(kinds) > SHOWN:
        lines.append(f"  and {len(kinds) - SHOWN} more")
    return lines or ["  No input file differs: the keys, the guests' packages or the tools do."]

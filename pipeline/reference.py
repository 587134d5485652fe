"""The reference file: the identities that a build expects, for the verifier. JSON, sorted, deterministic; no secret is in it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import chain
from pipeline.errors import UsageError

FORMAT = "terrane-reference-1"


class ReferenceError(UsageError):
    """A reference file that is not one."""


@dataclass(frozen=True)
class LayerReference:
    """What is expected of one layer of the run-time chain. `public_key`: empty where the machine's secret is not known."""

    name: str
    row: bytes
    sha256: str
    configuration: bytes
    security_version: int
    public_key: bytes
    closed: bool = False
    ready: str = ""  # what the box's console shows once it is up


@dataclass(frozen=True)
class EntryReference:
    """A row of the signed header, as it is measured. `is_code`: into PCR 9, otherwise PCR 8."""

    name: str
    row: bytes
    is_code: bool


@dataclass(frozen=True)
class BootReference:
    """What a boot of the image measures. SHA-256 as hex; `stages`: on a BIOS, in order; `application`: BOOTX64.EFI's Authenticode."""

    stages: tuple[str, ...]
    application: str
    header_sha256: str
    entries: tuple[EntryReference, ...]


@dataclass(frozen=True)
class Reference:
    """The whole file, checked."""

    mode: int
    posture: int
    security_version: int
    release_root: str  # SHA-256 of the root certificate
    header_key: bytes
    loader_sha256: str
    device_key: bytes  # empty for a release, whose image carries no secret
    monitor: LayerReference
    boxes: tuple[LayerReference, ...]
    boot: BootReference
    image_sha256: str = ""
    authority: bytes = b""  # the owner's provisioning CA, where there is one: an Ed25519 public key

    def box(self, name: str | None) -> LayerReference:
        """The box of this name, or the only closed one. Raises ReferenceError naming the boxes there are."""
        chosen = [box for box in self.boxes if (box.closed if name is None else box.name == name)]
        if len(chosen) != 1:
            wanted = "exactly one closed box" if name is None else f"a box {name!r}"
            found = ", ".join(f"{box.name} ({'closed' if box.closed else 'open'})" for box in self.boxes)
            raise ReferenceError(f"reference file: expected {wanted}, found {found or 'no boxes'}; --box names one")
        return chosen[0]


class _Reader:
    """Typed access to JSON values; each error names the place."""

    def __init__(self, value: Any, place: str) -> None:
        self.value = value
        self.place = place

    def at(self, key: str) -> _Reader:
        if not isinstance(self.value, dict) or key not in self.value:
            raise ReferenceError(f"{self.place}: expected a key {key!r}, found none")
        return _Reader(self.value[key], f"{self.place}: {key}")

    def typed(self, kind: type, name: str) -> Any:
        if not isinstance(self.value, kind) or (kind is int and isinstance(self.value, bool)):
            raise ReferenceError(f"{self.place}: expected {name}, found {self.value!r}")
        return self.value

    def number(self) -> int:
        value = int(self.typed(int, "a number"))
        if not 0 <= value < 1 << 64:
            raise ReferenceError(f"{self.place}: expected a number of 64 bits, found {value}")
        return value

    def mode(self) -> int:
        value = self.number()
        if value not in chain.MODES:
            raise ReferenceError(f"{self.place}: expected one of {', '.join(map(str, chain.MODES))}, found {value}")
        return value

    def text(self) -> str:
        return str(self.typed(str, "a text"))

    def name(self) -> str:
        text = self.text()
        if not (1 <= len(text) <= chain.NAME_SIZE and text.isascii() and text.isprintable()):
            raise ReferenceError(f"{self.place}: expected 1 to {chain.NAME_SIZE} printable characters, found {text!r}")
        return text

    def flag(self) -> bool:
        return bool(self.typed(bool, "true or false"))

    def hex(self, size: int) -> bytes:
        text = self.text()
        try:
            data = bytes.fromhex(text)
        except ValueError:
            data = b""
        if len(data) != size:
            raise ReferenceError(f"{self.place}: expected {2 * size} hex digits, found {text!r}")
        return data

    def hex_or_nothing(self, size: int) -> bytes:
        return self.hex(size) if self.text() else b""

    def items(self) -> list[_Reader]:
        return [_Reader(item, f"{self.place}[{index}]") for index, item in enumerate(self.typed(list, "a list"))]


def layer(reader: _Reader) -> LayerReference:
    """One layer of the file."""
    return LayerReference(
        name=reader.at("name").name(),
        row=reader.at("row").hex(64),
        sha256=reader.at("sha256").hex(32).hex(),
        configuration=reader.at("configuration").hex(68),
        security_version=reader.at("security_version").number(),
        public_key=reader.at("public_key").hex_or_nothing(32),
        closed=reader.at("closed").flag() if "closed" in reader.value else False,
        ready=reader.at("ready").text() if "ready" in reader.value else "",
    )


def boot(reader: _Reader) -> BootReference:
    """What a boot measures."""
    entries = [
        EntryReference(item.at("name").text(), item.at("row").hex(64), item.at("code").flag())
        for item in reader.at("entries").items()
    ]
    return BootReference(
        stages=tuple(item.hex(32).hex() for item in reader.at("stages").items()),
        application=reader.at("application").hex_or_nothing(32).hex(),
        header_sha256=reader.at("header_sha256").hex(32).hex(),
        entries=tuple(entries),
    )


def load(path: Path) -> Reference:
    """Read a reference file. Raises ReferenceError naming what was expected and found."""
    try:
        values = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ReferenceError(f"{path}: expected a reference file, cannot read it: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ReferenceError(f"{path}: expected JSON: {error}") from None
    top = _Reader(values, str(path))
    found = top.at("format").text()
    if found != FORMAT:
        raise ReferenceError(f"{path}: format: expected {FORMAT!r}, found {found!r}")
    return Reference(
        mode=top.at("mode").mode(),
        posture=top.at("posture").number(),
        security_version=top.at("security_version").number(),
        release_root=top.at("release_root").hex(32).hex(),
        header_key=top.at("header_key").hex(32),
        loader_sha256=top.at("loader_sha256").hex(32).hex(),
        device_key=top.at("device").at("public_key").hex_or_nothing(32),
        monitor=layer(top.at("monitor")),
        boxes=tuple(layer(item) for item in top.at("boxes").items()),
        boot=boot(top.at("boot")),
        image_sha256=top.at("image_sha256").hex_or_nothing(32).hex(),
        authority=top.at("authority").hex_or_nothing(32),
    )


def write(path: Path, values: dict[str, Any]) -> None:
    """Write a reference file; complete or not at all."""
    temporary = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_text(json.dumps({"format": FORMAT, **values}, indent=1, sort_keys=True) + "\n")
    temporary.replace(path)

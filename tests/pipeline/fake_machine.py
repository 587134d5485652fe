"""Stands in for an emulator in `run`'s tests: its line is Bochs' (a socket) or QEMU's (its standard streams); FAKE says what it does.

Behaviours: good, old-nonce, garbled, refuse, secure-boot, stop, silent, exit.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import sys
import time
from pathlib import Path

from pipeline import evidence
from tests.pipeline.forge import NONCE, Machine


class Line:
    """The serial line: two descriptors."""

    def __init__(self, receiver: int, sender: int) -> None:
        self.receiver, self.sender = receiver, sender

    def say(self, name: str, lines: list[str]) -> None:
        """Print lines of a box."""
        os.write(self.sender, "".join(f"{name}| {line}\r\n" for line in lines).encode())

    def read_until(self, end: bytes) -> bytes:
        """Bytes up to and with `end`; at the end of the line so does the machine."""
        data = b""
        while not data.endswith(end):
            piece = os.read(self.receiver, 1)
            if not piece:
                raise SystemExit(0)
            data += piece
        return data


def serve(port: int) -> socket.socket:
    """Wait for the client, as Bochs does."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen(1)
        return server.accept()[0]


def evidence_lines(nonce: bytes, behaviour: str) -> list[str]:
    """What the witness prints: without the release chain, which the host adds."""
    machine = Machine()
    machine.nonce = NONCE if behaviour == "old-nonce" else nonce
    machine.release = [b""] * 5
    items = [item for item in machine.items() if item.kind is not evidence.Kind.RELEASE]
    bundle = evidence.pack(items)
    digest = hashlib.sha256(bundle).hexdigest()
    shown = bundle[:-1] + b"?" if behaviour == "garbled" else bundle
    return ["begin-evidence", *re.findall(".{1,64}", shown.hex()), f"end-evidence {digest}"]


def main() -> None:
    """Be the machine."""
    if "--help" in sys.argv:
        raise SystemExit(0)  # no list of CPU models: whatever is asked for is taken
    behaviour = os.environ["FAKE"]
    if not Path("bochsrc").exists():
        behave(Line(sys.stdin.fileno(), sys.stdout.fileno()), behaviour)
        return
    Path("bochs.log").write_text("00000000000p[CPU0  ] >>PANIC<< a made-up panic\n")
    if behaviour == "exit":
        raise SystemExit(7)
    port = int(re.search(r"dev=127\.0\.0\.1:(\d+)", Path("bochsrc").read_text())[1])  # type: ignore[index]
    with serve(port) as connection:
        behave(Line(connection.fileno(), connection.fileno()), behaviour)


def behave(line: Line, behaviour: str) -> None:
    """Say what it says."""
    if behaviour == "secure-boot":
        os.write(
            line.sender, b'BdsDxe: failed to load Boot0001 "UEFI QEMU HARDDISK" from PciRoot(0x0): Access Denied\r\n'
        )
        time.sleep(60)
    line.say("terrane", ["loader: checking the image"])
    if behaviour == "refuse":
        line.say("terrane", ["refused: header: signature: expected a good one, found another", "stopped"])
    if behaviour == "stop":
        raise SystemExit(1)
    if behaviour in ("refuse", "silent"):
        time.sleep(60)
    line.say("debian", ["debian ready"])
    line.say("witness", ["witness ready"])
    asked = line.read_until(b"\n")
    found = re.fullmatch(rb"\x011attest ([0-9a-f]{64})\n", asked)
    assert found, asked
    line.say("witness", evidence_lines(bytes.fromhex(found[1].decode()), behaviour))
    assert line.read_until(b"\x010") == b"\x010"
    words = line.read_until(b"\n")
    line.say("debian", [f"you said {words.decode().strip()}"])
    time.sleep(60)


if __name__ == "__main__":
    main()

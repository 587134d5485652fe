"""Stands in for Bochs in tests of `run`: reads bochsrc, serves the serial port, and behaves as FAKE_BOCHS says.

Behaviours: good, old-nonce, garbled, refuse, stop, silent, exit, echo.
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


def say(connection: socket.socket, name: str, lines: list[str]) -> None:
    """Print lines of a box."""
    connection.sendall("".join(f"{name}| {line}\r\n" for line in lines).encode())


def read_until(connection: socket.socket, end: bytes) -> bytes:
    """Bytes up to and with `end`, or up to the end."""
    data = b""
    while not data.endswith(end):
        piece = connection.recv(1)
        if not piece:
            raise SystemExit(0)
        data += piece
    return data


def main() -> None:
    """Be the machine."""
    if "--help" in sys.argv:
        raise SystemExit(0)  # no list of CPU models: whatever is asked for is taken
    behaviour = os.environ["FAKE_BOCHS"]
    Path("bochs.log").write_text("00000000000p[CPU0  ] >>PANIC<< a made-up panic\n")
    if behaviour == "exit":
        raise SystemExit(7)
    port = int(re.search(r"dev=127\.0\.0\.1:(\d+)", Path("bochsrc").read_text())[1])  # type: ignore[index]
    connection = serve(port)
    say(connection, "terrane", ["loader: checking the image"])
    if behaviour == "refuse":
        say(connection, "terrane", ["refused: header: signature: expected a good one, found another", "stopped"])
    if behaviour == "stop":
        raise SystemExit(1)
    if behaviour in ("refuse", "silent"):
        time.sleep(60)
    say(connection, "debian", ["debian ready"])
    say(connection, "witness", ["witness ready"])
    asked = read_until(connection, b"\n")
    found = re.fullmatch(rb"\x011attest ([0-9a-f]{64})\n", asked)
    assert found, asked
    say(connection, "witness", evidence_lines(bytes.fromhex(found[1].decode()), behaviour))
    assert read_until(connection, b"\x010") == b"\x010"
    line = read_until(connection, b"\n")
    say(connection, "debian", [f"you said {line.decode().strip()}"])
    time.sleep(60)


if __name__ == "__main__":
    main()

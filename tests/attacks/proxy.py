"""A proxy between QEMU and swtpm that changes answers: flips, cuts, enlarges, replays, drops and delays what the TPM says to the loader.

QEMU hands swtpm one end of a socket pair over the control line (CMD_SET_DATAFD); the proxy keeps that end and gives swtpm one of its own.
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections import Counter
from pathlib import Path

SET_DATA_FD = (0x10).to_bytes(4, "big")
HEAD = 10  # bytes of every command and answer: tag, size, code
NV_READ_PUBLIC = 0x169  # the loader's first command that no firmware here gives
KINDS = ("bit", "cut", "enlarged", "replayed", "ones", "error", "delayed", "dropped")


class Proxy:
    """Listens where QEMU looks for swtpm. `rate`: the share of answers to the loader that are changed. Use as a context manager."""

    def __init__(self, path: Path, real: Path, seed: int, rate: float) -> None:
        self.choice, self.rate, self.real = random.Random(seed), rate, real
        self.changed: Counter[str] = Counter()
        self.seen: list[bytes] = []
        self.ours = False
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(1)
        self.lines: list[socket.socket] = [self.listener]
        self.threads = [threading.Thread(target=self.serve, daemon=True)]

    def __enter__(self) -> Proxy:
        self.threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        for line in self.lines:
            with contextlib.suppress(OSError):  # it had ended
                line.shutdown(socket.SHUT_RDWR)
            line.close()

    def serve(self) -> None:
        """One machine: its control line is passed on as it is, but for the data line's file descriptor."""
        try:
            qemu, _ = self.listener.accept()
            tpm = socket.socket(socket.AF_UNIX)
            tpm.connect(str(self.real))
            self.lines += [qemu, tpm]
            back = threading.Thread(target=pump, args=(tpm, qemu), daemon=True)
            back.start()
            while True:
                data, descriptors, _, _ = socket.recv_fds(qemu, 65536, 1)
                if not data:
                    return
                if not data.startswith(SET_DATA_FD) or not descriptors:
                    tpm.sendall(data)
                    continue
                theirs = socket.socket(fileno=descriptors[0])
                mine, given = socket.socketpair()
                self.lines += [theirs, mine]
                threading.Thread(target=self.relay, args=(theirs, mine), daemon=True).start()
                socket.send_fds(tpm, [data], [given.fileno()])
                given.close()
        except OSError:
            return  # the machine was ended

    def relay(self, theirs: socket.socket, mine: socket.socket) -> None:
        """Commands through, answers through or changed."""
        try:
            while command := message(theirs):
                mine.sendall(command)
                answer = message(mine)
                self.ours |= int.from_bytes(command[6:10], "big") == NV_READ_PUBLIC
                if self.ours and self.choice.random() < self.rate:
                    changed = self.change(answer)
                    if changed is None:
                        continue  # dropped
                    answer = changed
                self.seen.append(answer)
                theirs.sendall(answer)
        except OSError:
            return

    def change(self, answer: bytes) -> bytes | None:
        """Another answer; None for none."""
        kind = self.choice.choice(KINDS)
        self.changed[kind] += 1
        if kind == "bit":
            at = self.choice.randrange(HEAD, len(answer)) if len(answer) > HEAD else 9
            return answer[:at] + bytes([answer[at] ^ 1 << self.choice.randrange(8)]) + answer[at + 1 :]
        if kind == "cut":
            return sized(answer[: self.choice.randrange(HEAD, len(answer) + 1)])
        if kind == "enlarged":
            return sized(answer + self.choice.randbytes(self.choice.choice((1, 100, 1000))))
        if kind == "replayed":
            return self.choice.choice(self.seen) if self.seen else answer
        if kind == "ones":
            return answer[:6] + b"\xff" * (len(answer) - 6)
        if kind == "error":
            return (
                b"\x80\x01"
                + HEAD.to_bytes(4, "big")
                + self.choice.choice((0x101, 0x922, 0x99D, 0x12F)).to_bytes(4, "big")
            )
        if kind == "delayed":
            time.sleep(self.choice.choice((0.05, 0.3, 1.0)))
            return answer
        return None


def sized(answer: bytes) -> bytes:
    """The size field made to fit, so that QEMU passes it on."""
    return answer[:2] + len(answer).to_bytes(4, "big") + answer[6:]


def message(line: socket.socket) -> bytes:
    """One whole command or answer; empty at the end."""
    data = b""
    size = HEAD
    while len(data) < size:
        piece = line.recv(size - len(data))
        if not piece:
            return b""
        data += piece
        if len(data) == HEAD:
            size = max(HEAD, int.from_bytes(data[2:6], "big"))
    return data


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Everything from one line to another."""
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        return

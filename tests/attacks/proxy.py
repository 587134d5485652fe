"""A proxy between QEMU and swtpm that changes what the TPM says to the loader (changes.py).

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

from tests.attacks.changes import HEAD, change

SET_DATA_FD = (0x10).to_bytes(4, "big")
NV_READ_PUBLIC = 0x169  # the loader's first command that no firmware here gives
DELAYS_MS = (50, 300, 1000)


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
                    changed = change(answer, self.seen, self.choice, DELAYS_MS, fits=True)
                    self.changed[changed.kind] += 1
                    time.sleep(changed.late_ms / 1000)
                    answer = changed.answer
                if not answer:
                    continue  # dropped
                self.seen.append(answer)
                theirs.sendall(answer)
        except OSError:
            return


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

"""The registers of a TPM, for the emulator: FIFO and CRB in front of any backend, and what a broken or hostile one does (PTP 1.05, 6.5)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

Backend = Callable[[bytes], bytes]  # a command's answer; empty: there is none
BASE = 0xFED40000
NEVER = 1 << 62  # looks


@dataclass
class Behaviour:
    """What the registers do that they should not. Numbers count looks at the status."""

    stuck: dict[int, int] = field(default_factory=dict)  # offset -> what it always reads
    delay: int = 0  # looks before an answer is there
    answers: bool = True
    takes: int = 1 << 20  # bytes of a command before it stops taking
    hungry: bool = False  # it wants more after the command's end
    gives: int = 1 << 20  # bytes of an answer before it stops giving
    more: int = 0  # bytes after the answer's end
    burst: int = 8


class Fifo:
    """A FIFO interface."""

    def __init__(self, backend: Backend, behaviour: Behaviour | None = None) -> None:
        self.backend, self.does = backend, behaviour or Behaviour()
        self.active = self.ready = self.going = False
        self.command, self.answer = bytearray(), bytearray()
        self.waited = self.given = 0

    def read(self, offset: int, width: int) -> int:
        if offset in self.does.stuck:
            return self.does.stuck[offset]
        if offset == 0:
            return 0x80 | 0x20 * self.active
        if offset == 0x18:
            return self.status()
        if offset == 0x24:
            self.given += 1
            return self.answer.pop(0) if self.answer else 0xFF
        return 0x00011014 if offset == 0xF00 else 0

    def status(self) -> int:
        value = 0x80 | 0x40 * (self.ready and not self.command)
        wanted = struct.unpack_from(">I", self.command, 2)[0] if len(self.command) >= 6 else 1 << 30
        if self.command and not self.going and (len(self.command) < wanted or self.does.hungry):
            value |= 0x08
        room = not self.going and len(self.command) < self.does.takes
        if self.going:
            self.waited += 1
            has = self.answer and self.waited > self.does.delay and self.given < self.does.gives
            value |= 0x10 * bool(has)
            room = bool(has)
        return value | (self.does.burst << 8 if room else 0)

    def write(self, offset: int, width: int, value: int) -> None:
        if offset == 0 and value & 2:
            self.active = True
        elif offset == 0x18 and value & 0x40:
            self.ready, self.going, self.waited, self.given = True, False, 0, 0
            self.command.clear()
            self.answer.clear()
        elif offset == 0x18 and value & 0x20:
            self.going = True
            if self.does.answers:
                self.answer += self.backend(bytes(self.command)) + bytes(self.does.more)
        elif offset == 0x24 and len(self.command) < self.does.takes:
            self.command.append(value & 0xFF)


class Crb:
    """A command-response buffer whose control area is in the locality's page. answer_at: where in the buffer answers begin."""

    SIZE = 0xF80

    def __init__(self, backend: Backend, behaviour: Behaviour | None = None, answer_at: int = 0) -> None:
        self.backend, self.does, self.answer_at = backend, behaviour or Behaviour(), answer_at
        self.granted = self.failed = False
        self.running = -1  # looks until the command is through
        self.buffer = bytearray(self.SIZE)

    def read(self, offset: int, width: int) -> int:
        if offset in self.does.stuck:
            return self.does.stuck[offset]
        if offset >= 0x80:
            return int.from_bytes(self.buffer[offset - 0x80 :][:width], "little")
        if offset == 0x4C:
            if self.running > 0 and self.does.answers:
                self.running -= 1
            return int(self.running != 0 and self.running != -1)
        place, size = BASE + 0x80, self.SIZE - self.answer_at
        values = {
            0x0C: self.granted, 0x44: self.failed, 0x58: self.SIZE, 0x5C: place, 0x64: size, 0x68: place + self.answer_at,
        }  # fmt: skip
        return int(values.get(offset, 0))

    def write(self, offset: int, width: int, value: int) -> None:
        if offset >= 0x80:
            self.buffer[offset - 0x80 : offset - 0x80 + width] = value.to_bytes(width, "little")
        elif offset == 0x08:
            self.granted = True
        elif offset == 0x4C and value & 1:
            answer = b""
            if self.does.answers:
                size = struct.unpack_from(">I", self.buffer, 2)[0]
                answer = self.backend(bytes(self.buffer[: min(size, self.does.takes)]))
                self.buffer[self.answer_at : self.answer_at + len(answer)] = answer
            self.running = self.does.delay + 1 if answer else NEVER


class Line:
    """A backend: swtpm's data channel."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)

    def __call__(self, command: bytes) -> bytes:
        """One command, one answer."""
        self.socket.sendall(command)
        answer = b""
        while len(answer) < 10 or len(answer) < struct.unpack_from(">I", answer, 2)[0]:
            piece = self.socket.recv(4096)
            if not piece:
                raise ConnectionError("swtpm hung up")
            answer += piece
        return answer

    def close(self) -> None:
        self.socket.close()

"""The serial line as the monitor writes it: lines led by their box's name, taken apart again (docs/formats.md, "Console")."""

from __future__ import annotations

import re

from pipeline.disk import APPLICATION

ATTENTION = b"\x01"
MONITOR = "terrane"
LEAD = re.compile(r"([a-z0-9-]{1,31})([|+]) ?(.*)", re.DOTALL)
REFUSED, STOPPED = "refused: ", "stopped"
FIRMWARE_REFUSED = re.compile(r"BdsDxe: failed to load Boot\w+ .*: (Access Denied|Security Violation)")  # OVMF's words


class Transcript:
    """What each box said so far. Feed it bytes in any pieces."""

    def __init__(self) -> None:
        """Nothing said yet."""
        self._pending = ""
        self._said: dict[str, str] = {}
        self._firmware_refused = ""

    def feed(self, data: bytes) -> None:
        """Take further bytes of the line."""
        text = self._pending + data.decode("ascii", "backslashreplace")
        *lines, self._pending = text.split("\n")
        for line in lines:
            self._add(line.rstrip("\r"))

    def _add(self, line: str) -> None:
        lead = LEAD.fullmatch(line)
        if lead is None:
            refused = FIRMWARE_REFUSED.search(line)
            self._firmware_refused = refused[1] if refused else self._firmware_refused
            return
        name, mark, text = lead.groups()
        before = self._said.get(name, "")
        self._said[name] = before + (text if mark == "+" or not before else "\n" + text)

    def said(self, name: str) -> str:
        """All lines of a box, joined where the console cut them; the line that has not ended yet included."""
        lead = LEAD.fullmatch(self._pending.rstrip("\r"))
        before = self._said.get(name, "")
        if lead is None or lead[1] != name:
            return before
        return before + (lead[3] if lead[2] == "+" or not before else "\n" + lead[3])

    def has_begun_line(self) -> bool:
        """Whether the line that has not ended yet has its box's name already."""
        return LEAD.fullmatch(self._pending) is not None

    def refusal(self) -> str | None:
        """Firmware's, the loader's or the monitor's refusal or fault, once its line has ended; or last words, where it just stopped."""
        if self._firmware_refused:
            return f"firmware does not start {APPLICATION}: {self._firmware_refused}"
        lines = self._said.get(MONITOR, "").splitlines()
        refused = [line for line in lines if line.startswith((REFUSED, f"{STOPPED}: "))]
        if refused:
            return refused[0]
        return f"the machine stopped after: {' / '.join(lines[-3:-1])}" if lines[-1:] == [STOPPED] else None


def focus(index: int) -> bytes:
    """The keys that give the focus to a box, by its place in the image."""
    return ATTENTION + f"{index:x}".encode()

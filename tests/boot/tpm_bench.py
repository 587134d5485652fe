"""A provisioned TPM in software for the loader's emitted TPM code, and who owns it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline import approvals, provision
from pipeline.swtpm import Swtpm
from pipeline.tpm_tools import TpmTools
from tests.boot.tpm_device import Backend, Line

FLOOR = 5
SECRET = "boot.entries.SECRET"
PCR_EVENT = bytes.fromhex("8002 0000001e 0000013c")
NO_PASSWORD = bytes.fromhex("00000009 40000009 0000 00 0000")


def pcr_event(pcr: int, data: bytes) -> bytes:
    """TPM2_PCR_Event of one byte."""
    return PCR_EVENT + pcr.to_bytes(4, "big") + NO_PASSWORD + struct.pack(">H", len(data)) + data


def pcr_values(line: Backend) -> dict[int, bytes]:
    """PCR 0 to 15 of the SHA-256 bank."""
    values = {}
    for pcr in range(16):
        selection = struct.pack(">IHB", 1, 0xB, 3) + (1 << pcr).to_bytes(3, "little")
        values[pcr] = line(bytes.fromhex("8001 00000014 0000017e") + selection)[-32:]
    return values


@dataclass
class Bench:
    """A provisioned TPM at rest, and who owns it."""

    folder: Path
    owner: provision.OwnerKeys
    machine: provision.Provisioned

    @contextmanager
    def powered(self, measured: bool = True) -> Iterator[Line]:
        """The TPM after a reset; `measured`: firmware extended PCR 0 to 7."""
        with Swtpm(self.folder, for_tools=True) as running:
            line = Line(running.port)
            for pcr in range(8 if measured else 0):
                assert line(pcr_event(pcr, b"f"))[6:10] == bytes(4)
            try:
                yield line
            finally:
                line.close()

    def table(self, line: Line, *versions: int) -> bytes:
        """An approval table for PCR 4 as it is; the rows for other versions come first."""
        table = approvals.table(self.owner.policy.public_key(), [])
        for version in versions:
            row = approvals.approve(self.owner.policy, 1 << 4, pcr_values(line), self.machine.counter_base, version)
            table = approvals.add(table, self.owner.policy.public_key(), row)
        return table


def provisioned(folder: Path) -> Bench:
    """A new TPM, provisioned as its owner does it."""
    owner = provision.load_owner_keys(folder / "keys")
    with Swtpm(folder / "state", for_tools=True) as software, TpmTools(software.tcti) as tools:
        return Bench(folder / "state", owner, provision.provision(tools, owner, FLOOR, [], True))

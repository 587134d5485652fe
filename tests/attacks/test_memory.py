"""After the hand-over, and after a reset that keeps the memory, nothing of the loader's secrets is in it; the TPM gave a real one."""

from __future__ import annotations

import hashlib
import json
import socket
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from pipeline import chain, evidence, provision
from pipeline.assemble import Terms
from pipeline.console import MONITOR
from pipeline.evidence import Kind
from pipeline.qemu import Qemu, QemuMachine
from pipeline.run import EVIDENCE, Terminal, checked_bundle
from tests import needs
from tests.system.test_measured_boot import SECONDS, Bench, item

pytestmark = needs.whole_machines(needs.firmware, needs.tpm)
MEMORY = 256  # MiB
SECRET = hashlib.sha256(b"a device secret that is not zero").digest()


class Control:
    """A machine's control line (QMP)."""

    def __init__(self, path: Path) -> None:
        self.line = socket.socket(socket.AF_UNIX)
        self.line.connect(str(path))
        self.talk = self.line.makefile("rw")
        self.do("qmp_capabilities")

    def __enter__(self) -> Control:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.talk.close()
        self.line.close()

    def do(self, command: str, **arguments: Any) -> None:
        """Do one command, and wait until it is done."""
        self.talk.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.talk.flush()
        while "return" not in (answer := json.loads(self.talk.readline())):
            assert "error" not in answer, answer

    def memory(self, path: Path) -> bytes:
        """All RAM, the machine stopped."""
        self.do("stop")
        self.do("pmemsave", val=0, size=MEMORY << 20, filename=str(path))
        data = path.read_bytes()
        path.unlink()
        return data


def secrets_of(secret: bytes) -> dict[str, bytes]:
    """What the loader derives on its way, in the pieces in which it could lie about."""
    seed = chain.kdf(32, secret, chain.KEY_SALT, "Key Pair")
    expanded = hashlib.sha512(seed).digest()
    scalar = bytearray(expanded[:32])
    scalar[0] &= 0xF8
    scalar[31] = scalar[31] & 0x7F | 0x40
    whole = {"device secret": secret, "key seed": seed, "scalar": bytes(scalar), "prefix": expanded[32:]}
    return {f"{name}, bytes {at} to {at + 15}": data[at : at + 16] for name, data in whole.items() for at in (0, 16)}


@pytest.mark.parametrize(("firmware", "interface"), [("bios", "crb"), ("uefi", "tis")])
def test_no_secret_of_the_loader_is_found(
    firmware: str, interface: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The search finds the device certificate, so it can find; of the secrets, read from the TPM a moment before, it finds no half."""
    monkeypatch.setattr(provision, "new_secret", lambda _: SECRET)
    bench = Bench(tmp_path, firmware, interface)
    path, _ = bench.build()
    first = bench.boot(path)
    bench.provision()
    path, expected = bench.build(Terms(release=True))
    bench.approve(first, expected)
    path, _ = bench.build(Terms(release=True))
    terminal = Terminal(show=False)
    more = (
        "-qmp",
        f"unix:{tmp_path / 'qmp'},server=on,wait=off",
        "-action",
        "reboot=reset",
        "-action",
        "shutdown=pause",
    )
    machine = QemuMachine(path, MEMORY, firmware, tpm=interface, tpm_state=tmp_path / "tpm", more=more)
    with Qemu(machine, terminal.take) as emulator:
        emulator.wait_for(lambda: EVIDENCE.search(terminal.transcript.said(MONITOR)) is not None, "evidence", SECONDS)
        with Control(tmp_path / "qmp") as control:
            after_handover = control.memory(tmp_path / "memory")
            control.do("system_reset")
            after_reset = control.memory(tmp_path / "memory")
    bundle = checked_bundle(terminal.transcript.said(MONITOR))
    assert Kind.QUOTE in {each.kind for each in evidence.parse(bundle)}
    certificate = item(bundle, Kind.DEVICE)
    assert chain.key_of(SECRET).public_key().public_bytes_raw() in certificate
    found = 0
    for memory in (after_handover, after_reset):
        assert certificate in memory
        hits = [name for name, piece in secrets_of(SECRET).items() if piece in memory]
        assert hits == []
        found += len(hits)
    with capsys.disabled():
        print(f"\n{firmware}: secrets searched {len(secrets_of(SECRET))}, in 2 times {MEMORY} MiB: found {found}")

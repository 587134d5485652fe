"""A TPM in software (swtpm): made once, with an endorsement key and certificate, and started for QEMU or for tpm2-tools."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

from pipeline import processes
from pipeline.errors import PipelineError, UsageError

STATE_FILE = "tpm2-00.permall"
START_SECONDS = 10.0
CA_FOLDER = "ca"  # of the manufacturer that swtpm_setup plays: issuercert.pem signs the endorsement certificate


def check_installed() -> None:
    """Refuse a host without swtpm. Raises UsageError."""
    for program, package in (("swtpm", "swtpm"), ("swtpm_setup", "swtpm-tools")):
        if shutil.which(program) is None:
            raise UsageError(f"expected the program {program} (Debian package {package}), found none; install it")


def manufacture(folder: Path) -> None:
    """Make a TPM in this folder, as its maker would, unless there is one. Raises PipelineError."""
    check_installed()
    if (folder / STATE_FILE).exists():
        return
    authority = folder / CA_FOLDER
    authority.mkdir(parents=True, exist_ok=True)
    settings = authority / "swtpm-localca.conf"
    settings.write_text(
        f"statedir = {authority}\nsigningkey = {authority}/signkey.pem\n"
        f"issuercert = {authority}/issuercert.pem\ncertserial = {authority}/certserial\n"
    )
    options = authority / "swtpm-localca.options"
    options.write_text("--platform-manufacturer Terrane\n--platform-version 1\n--platform-model test\n")
    setup = authority / "swtpm_setup.conf"
    localca = shutil.which("swtpm_localca") or "/usr/bin/swtpm_localca"
    setup.write_text(
        f"create_certs_tool = {localca}\ncreate_certs_tool_config = {settings}\ncreate_certs_tool_options = {options}\n"
    )
    command = ["swtpm_setup", "--tpm2", "--tpmstate", str(folder), "--create-ek-cert", "--pcr-banks", "sha256"]
    done = subprocess.run([*command, "--config", str(setup)], capture_output=True, text=True, timeout=120)
    if done.returncode or not (folder / STATE_FILE).exists():
        raise PipelineError(f"swtpm_setup: expected a new TPM in {folder}, found: {(done.stdout + done.stderr)[-600:]}")


def free_ports() -> int:
    """The first of two TCP ports in a row that nobody listens on."""
    for _ in range(100):
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port
    raise PipelineError("swtpm: expected two free TCP ports in a row, found none in 100 tries")


class Swtpm:
    """A running TPM. `for_tools`: on loopback, started up, for tpm2-tools (`tcti`); else on `socket`, for QEMU, which starts it up."""

    def __init__(self, folder: Path, for_tools: bool = False) -> None:
        """`folder` holds its state; it is made there if need be."""
        manufacture(folder)
        self.folder = folder.absolute()
        self.socket = self.folder / "control"
        self.port = free_ports() if for_tools else 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def tcti(self) -> str:
        """What tpm2-tools take to reach it."""
        return f"swtpm:host=127.0.0.1,port={self.port}"

    def __enter__(self) -> Swtpm:
        """Start it, and wait until it listens."""
        words = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.folder}"]
        if self.port:
            words += ["--server", f"type=tcp,port={self.port},bindaddr=127.0.0.1", "--flags", "startup-clear"]
            words += ["--ctrl", f"type=tcp,port={self.port + 1},bindaddr=127.0.0.1"]
        else:
            self.socket.unlink(missing_ok=True)
            words += ["--ctrl", f"type=unixio,path={self.socket}", "--terminate"]
        with (self.folder / "swtpm.log").open("wb") as log:
            self.process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.listens():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.__exit__(None, None, None)
                said = (self.folder / "swtpm.log").read_text(errors="replace").strip()
                raise PipelineError(f"swtpm: expected it to listen, found: {said[-400:] or 'that it does not'}")
            time.sleep(0.02)
        return self

    def listens(self) -> bool:
        """Whether the control channel is there."""
        if not self.port:
            return self.socket.exists()
        with socket.socket() as line:
            return line.connect_ex(("127.0.0.1", self.port + 1)) == 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it, and only it."""
        assert self.process is not None
        processes.end(self.process)

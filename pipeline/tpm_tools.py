"""A TPM through tpm2-tools: one command a call, without a resource manager, in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

from pipeline.errors import PipelineError, UsageError


def check_installed() -> None:
    """Refuse a host without tpm2-tools. Raises UsageError."""
    if shutil.which("tpm2") is None:
        raise UsageError("expected the program tpm2 (Debian package tpm2-tools), found none; install it")


class TpmTools:
    """Runs tpm2-tools. Use as a context manager: leaving it removes the folder in which contexts lie."""

    def __init__(self, tcti: str | None) -> None:
        """`tcti`: how tpm2-tools reach the TPM, such as device:/dev/tpmrm0; None leaves that to them."""
        check_installed()
        self.environment = os.environ | {"TSS2_LOG": "all+NONE"} | ({"TPM2TOOLS_TCTI": tcti} if tcti else {})
        self.folder = Path(tempfile.mkdtemp(prefix="terrane-tpm-"))  # mode 0700: contexts and secrets lie in it

    def __enter__(self) -> TpmTools:
        """Nothing is done before the first command."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Forget everything."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def attempt(self, *words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run one tool, whatever comes of it; transient objects and sessions that no context file holds are flushed first."""
        for kind in ("-t", "-l"):
            subprocess.run(["tpm2", "flushcontext", kind], env=self.environment, capture_output=True, timeout=60)
        return subprocess.run(
            ["tpm2", *words], env=self.environment, cwd=self.folder, input=given, capture_output=True, timeout=120
        )

    def run(self, *words: str, given: bytes = b"") -> bytes:
        """What one tool prints. Raises PipelineError with its own words."""
        done = self.attempt(*words, given=given)
        if done.returncode:
            said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
            raise PipelineError(
                f"tpm2 {words[0]}: expected success, found: {' / '.join(said[-3:]) or 'a silent failure'}"
            )
        return done.stdout

    def file(self, name: str) -> bytes:
        """A file that a tool wrote."""
        return (self.folder / name).read_bytes()

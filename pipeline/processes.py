"""Ending a process that we started, and only that one."""

from __future__ import annotations

import subprocess

PATIENCE_SECONDS = 3.0


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end; kill it if it does not. Nothing happens to one that has ended."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

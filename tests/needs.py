"""What tests need of this machine beyond Python: marks that skip them with the reason where it is not there."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline import qemu, swtpm, tpm_tools
from pipeline.errors import UsageError


def firmware() -> None:
    """QEMU, with firmware of both kinds."""
    qemu.check_installed(qemu.UEFI)


def tpm() -> None:
    """A TPM in software, and the TCG's tools."""
    swtpm.check_installed()
    tpm_tools.check_installed()


def skip_without(*checks: Callable[[], None]) -> pytest.MarkDecorator:
    """Skip where one of these raises UsageError, with its text."""
    try:
        for check in checks:
            check()
    except UsageError as error:
        return pytest.mark.skipif(True, reason=str(error))
    return pytest.mark.skipif(False, reason="nothing is missing")


def whole_machines(*checks: Callable[[], None]) -> list[pytest.MarkDecorator]:
    """The marks of tests that boot whole machines outside Bochs."""
    return [pytest.mark.t3, pytest.mark.slow, skip_without(*checks)]

"""A pytest plugin for tests of machine functions: two worlds as fixtures, and the last instructions beside a failure.

    def test_checksum(emu, native):
        assert emu(checksum, b"abc") == native(checksum, b"abc") == 294

`emu` runs the emitted bytes in Unicorn, `native` on this processor; worlds.py says what arguments may be. A failing test that took `emu`
shows the last 32 instructions of its last call with their source lines.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.worlds import Native, Unicorn


@pytest.fixture
def emu() -> Unicorn:
    """Unicorn, to be called with a machine function and its arguments; gives the result."""
    return Unicorn()


@pytest.fixture
def native() -> Native:
    """This processor, to be called with a machine function and its arguments; gives the result."""
    return Native()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add what the emulated machine executed last to the report of a failed test."""
    report = yield
    world = getattr(item, "funcargs", {}).get("emu")
    if report.when == "call" and report.failed and isinstance(world, Unicorn) and world.last is not None:  # type: ignore[attr-defined]
        report.sections.append(("last instructions in the emulated machine", world.last.last_instructions()))  # type: ignore[attr-defined]
    return report

"""A pytest plugin for tests of machine functions: three worlds as fixtures, and the last instructions beside a failure.

    def test_checksum(emu, native):
        assert emu(checksum, b"abc") == native(checksum, b"abc") == 294

`emu` runs the emitted bytes in Unicorn, `native` on this processor, `vmx` in Unicorn on a model of VT-x (model/world.py); worlds.py says
what arguments may be. A failing test shows the last 32 instructions of the last call in each, with their source lines. A processor does
not tell what it executed: the last call of `native` is made once more in Unicorn.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.model.world import Vmx
from tests.worlds import Native, Unicorn


@pytest.fixture
def emu() -> Unicorn:
    """Unicorn, to be called with a machine function and its arguments; gives the result."""
    return Unicorn()


@pytest.fixture
def native() -> Native:
    """This processor, to be called with a machine function and its arguments; gives the result."""
    return Native()


@pytest.fixture
def vmx() -> Vmx:
    """The VMX model, to be called with a machine function and its arguments; gives the result."""
    return Vmx()


def last_instructions(world: object) -> tuple[str, str] | None:
    """A heading and what a world executed last; None if nothing is known."""
    if isinstance(world, Native) and world.last is not None:
        return "last instructions of the native call, run once more in Unicorn", replayed(world)
    if isinstance(world, Unicorn | Vmx) and world.last is not None:
        where = "on the VMX model" if isinstance(world, Vmx) else "in the emulated machine"
        return f"last instructions {where}", world.last.last_instructions()
    return None


def replayed(world: Native) -> str:
    """What Unicorn executes last in the same call; it may end otherwise, which is then said."""
    assert world.last is not None
    function, arguments = world.last
    unicorn = Unicorn()
    ended = ""
    try:
        unicorn(function, *arguments)
    except AssertionError as error:
        ended = "\n" + str(error).partition("\n")[0]
    assert unicorn.last is not None
    return unicorn.last.last_instructions() + ended


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add what was executed last to the report of a failed test."""
    report = yield
    if report.when == "call" and report.failed:  # type: ignore[attr-defined]
        for name in ("emu", "native", "vmx"):
            section = last_instructions(getattr(item, "funcargs", {}).get(name))
            if section is not None:
                report.sections.append(section)  # type: ignore[attr-defined]
    return report

"""What every test may use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dsl.lang import Machine

pytest_plugins = ("tests.plugin",)


@pytest.fixture
def model() -> Iterator[Machine]:
    """A Machine that is current during the test."""
    with Machine() as machine:
        yield machine

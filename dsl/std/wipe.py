"""How much stack is wiped after work on secrets, by each routine that does such work for others: `@machine(wipes=WIPED_SIZE)`."""

from __future__ import annotations

from typing import Final

WIPED_SIZE: Final = 3584  # bytes: more than any of them goes down (tests/std measures it)

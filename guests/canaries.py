"""The pattern that the witness plants and the intruder looks for: the two guests must mean the same thing.

A canary is `CANARY | n`, n below 256: recognisable by its upper 56 bits, and a canonical address, so that address registers take it.
"""

from __future__ import annotations

from typing import Final

CANARY: Final = 0x0000_5749_544E_4500  # "WITNE"
NUMBER_MASK: Final = 0xFF

# The numbers n: which place a canary was planted in
NUMBER_XMM: Final = 0x00  # and the next 15
NUMBER_DEBUG: Final = 0x10  # and the next 3
NUMBER_CR2: Final = 0x14
NUMBER_LSTAR: Final = 0x15
NUMBER_KERNEL_GS: Final = 0x16
NUMBER_MEMORY: Final = 0x80  # and the next 127, again and again

MSR_LSTAR: Final = 0xC000_0082
MSR_KERNEL_GS_BASE: Final = 0xC000_0102
XMM_COUNT: Final = 16
DEBUG_COUNT: Final = 4  # DR0 to DR3

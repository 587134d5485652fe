"""What the compiled code uses without asking; both ways into the loader check it before the first compiled instruction that needs it."""

from __future__ import annotations

from typing import Final

# Name, CPUID leaf, result register (0 eax, 1 ebx, 2 ecx, 3 edx), bit.
BASELINE: Final = (
    ("x86-64 long mode", 0x80000001, 3, 29),
    ("NX", 0x80000001, 3, 20),
    ("MSRs", 1, 3, 5),
    ("an APIC", 1, 3, 9),
    ("SSE2", 1, 3, 26),
    ("POPCNT", 1, 2, 23),
    ("AES-NI", 1, 2, 25),
    ("LZCNT", 0x80000001, 2, 5),
    ("BMI1", 7, 1, 3),
    ("BMI2", 7, 1, 8),
    ("ADX", 7, 1, 19),
)

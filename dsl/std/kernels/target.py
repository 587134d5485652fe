"""What kernels may use: legacy SSE (never VEX on vectors: the upper halves survive), SHA, and what every program's baseline has."""

from __future__ import annotations

from typing import Any

from peachpy.x86_64 import Function, isa, uarch

TARGET = uarch.Microarchitecture("Terrane", (isa.cmov, isa.sse4_1, isa.sha, isa.bmi2, isa.adx), 4, 4, 2, 1)


def kernel(name: str) -> Any:
    """A PeachPy function whose arguments are read where System V has them: rdi, rsi, rdx, rcx, r8, r9, then the stack."""
    return Function(name, (), target=TARGET)

"""Where the monitor's special instructions are: its text scanned once with Capstone."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import capstone
from capstone import x86 as operands

SPECIAL = (
    "rdmsr", "wrmsr", "rdtsc", "cpuid", "xsetbv", "xsave64", "xrstor64", "rdrand", "rdseed", "hlt", "verw",
)  # fmt: skip
VMX = (
    "vmxon", "vmxoff", "vmclear", "vmptrld", "vmptrst", "vmread", "vmwrite", "vmlaunch", "vmresume", "invept", "invvpid",
)  # fmt: skip


@dataclass(frozen=True)
class Memory:
    """A memory operand."""

    base: str
    index: str
    scale: int
    displacement: int


@dataclass(frozen=True)
class Site:
    """One special instruction: operands are register names, or Memory."""

    address: int
    mnemonic: str
    size: int
    operands: tuple[str | Memory, ...]


def find_sites(image: bytes, base: int) -> dict[int, Site]:
    """All special and VMX instructions of a flat program, by address."""
    (text_end,) = struct.unpack_from("<I", image, 12)
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.detail = True
    sites: dict[int, Site] = {}
    offset = 64
    lite = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    for address, size, mnemonic, _ in lite.disasm_lite(image[64:text_end], base + 64):
        offset = address - base
        if mnemonic in SPECIAL or mnemonic in VMX:
            (instruction,) = decoder.disasm(image[offset : offset + size], address)
            sites[address] = Site(
                address, mnemonic, size, tuple(operand_of(instruction, o) for o in instruction.operands)
            )
        offset += size
    assert offset == text_end, f"the text decodes only up to {base + offset:#x}"
    return sites


def operand_of(instruction: capstone.CsInsn, operand: operands.X86Op) -> str | Memory:
    """An operand in our own terms. A displacement from RIP becomes an address."""
    if operand.type == operands.X86_OP_REG:
        return str(instruction.reg_name(operand.reg))
    assert operand.type == operands.X86_OP_MEM, instruction
    base, index = (instruction.reg_name(number) or "" for number in (operand.mem.base, operand.mem.index))
    if base == "rip":
        return Memory("", "", 1, instruction.address + instruction.size + operand.mem.disp)
    return Memory(base, index, operand.mem.scale, operand.mem.disp)

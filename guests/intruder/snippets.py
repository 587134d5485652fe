"""The instructions that the intruder tries, as bytes (SDM Vol. 2; AMD APM Vol. 3 for SVM). A test has Capstone read them back.

A snippet is its instruction and RET, padded to 16 bytes. It runs where the table lies: the box's page tables map all memory executable.
Memory operands are [rdi].
"""

from __future__ import annotations

from typing import Final

from dsl.lang import address_of, machine, table, u8, u64
from guests.intruder.attempt import NO_FAULT, PROBE, attempt

SNIPPET_SIZE: Final = 16

# Virtualization, safer mode, enclaves, system management: all must be refused
FORBIDDEN: Final[tuple[tuple[str, str], ...]] = (
    ("vmxoff", "0f01c4"),
    ("vmlaunch", "0f01c2"),
    ("vmresume", "0f01c3"),
    ("vmfunc", "0f01d4"),
    ("vmxon [rdi]", "f30fc737"),
    ("vmclear [rdi]", "660fc737"),
    ("vmptrld [rdi]", "0fc737"),
    ("vmptrst [rdi]", "0fc73f"),
    ("vmread rax, rcx", "0f78c8"),
    ("vmwrite rcx, rax", "0f79c8"),
    ("invept rax, [rdi]", "660f388007"),
    ("invvpid rax, [rdi]", "660f388107"),
    ("getsec", "0f37"),
    ("vmrun", "0f01d8"),
    ("vmmcall", "0f01d9"),
    ("vmload", "0f01da"),
    ("vmsave", "0f01db"),
    ("stgi", "0f01dc"),
    ("clgi", "0f01dd"),
    ("skinit", "0f01de"),
    ("invlpga", "0f01df"),
    ("rsm", "0faa"),
    ("encls", "0f01cf"),
    ("enclu", "0f01d7"),
)
# What a box may or may not be allowed
OTHERS: Final[tuple[tuple[str, str], ...]] = (
    ("invd", "0f08"),
    ("wbinvd", "0f09"),
    ("rdpmc", "0f33"),
    ("monitor", "0f01c8"),
    ("mwait", "0f01c9"),
    ("int1", "f1"),
    ("int3", "cc"),
    ("ud2", "0f0b"),
    ("rdtscp", "0f01f9"),
    ("rdrand rax", "480fc7f0"),
    ("rdseed rax", "480fc7f8"),
    ("invpcid rax, [rdi]", "660f388207"),
    ("xgetbv", "0f01d0"),
)
# Tools
RDMSR_BYTES: Final = ("rdmsr", "0f32")
WRMSR_BYTES: Final = ("wrmsr", "0f30")
SET_CR0: Final = ("mov cr0, rax", "0f22c0")
SET_CR3: Final = ("mov cr3, rax", "0f22d8")
SET_CR4: Final = ("mov cr4, rax", "0f22e0")
SET_CR8: Final = ("mov cr8, rax", "440f22c0")
VMCALL_BYTES: Final = ("vmcall", "0f01c1")
XSETBV_BYTES: Final = ("xsetbv", "0f01d1")
# Ways to touch memory: those that the monitor decodes, and those that it does not
READ_8: Final = ("mov al, [rdi]", "8a07")
READ_16: Final = ("mov ax, [rdi]", "668b07")
READ_32: Final = ("mov eax, [rdi]", "8b07")
READ_64: Final = ("mov rax, [rdi]", "488b07")
WRITE_8: Final = ("mov [rdi], al", "8807")
WRITE_64: Final = ("mov [rdi], rax", "488907")
STRANGE: Final[tuple[tuple[str, str], ...]] = (
    ("lock xadd [rdi], rax", "f0480fc107"),
    ("xchg [rdi], rax", "488707"),
    ("add [rdi], rax", "480107"),
    ("inc [rdi]", "48ff07"),
    ("movdqu xmm0, [rdi]", "f30f6f07"),
    ("movdqu [rdi], xmm0", "f30f7f07"),
    ("stosq", "48ab"),
    ("fxsave [rdi]", "0fae07"),
    ("lgdt [rdi]", "0f0117"),
    ("lidt [rdi]", "0f011f"),
    ("cmpxchg16b [rdi]", "480fc70f"),
    ("movbe rax, [rdi]", "480f38f007"),
)

TOOLS: Final = (
    RDMSR_BYTES, WRMSR_BYTES, SET_CR0, SET_CR3, SET_CR4, SET_CR8, XSETBV_BYTES, VMCALL_BYTES, READ_8, READ_16,
    READ_32, READ_64, WRITE_8, WRITE_64,
)  # fmt: skip
ROWS: Final = FORBIDDEN + OTHERS + STRANGE + TOOLS
FORBIDDEN_COUNT: Final = len(FORBIDDEN)
OTHERS_FIRST: Final = FORBIDDEN_COUNT
OTHERS_COUNT: Final = len(OTHERS)
STRANGE_FIRST: Final = OTHERS_FIRST + OTHERS_COUNT
STRANGE_COUNT: Final = len(STRANGE)
GETSEC_ROW: Final = ROWS.index(("getsec", "0f37"))
RDMSR_ROW: Final = ROWS.index(RDMSR_BYTES)
WRMSR_ROW: Final = ROWS.index(WRMSR_BYTES)
SET_CR0_ROW: Final = ROWS.index(SET_CR0)
SET_CR3_ROW: Final = ROWS.index(SET_CR3)
SET_CR4_ROW: Final = ROWS.index(SET_CR4)
SET_CR8_ROW: Final = ROWS.index(SET_CR8)
VMCALL_ROW: Final = ROWS.index(VMCALL_BYTES)
XSETBV_ROW: Final = ROWS.index(XSETBV_BYTES)
READ_8_ROW: Final = ROWS.index(READ_8)
READ_64_ROW: Final = ROWS.index(READ_64)
READ_ROWS: Final = 4  # READ_8 to READ_64 follow each other: row READ_8_ROW + n reads 1 << n bytes
WRITE_8_ROW: Final = ROWS.index(WRITE_8)
WRITE_64_ROW: Final = ROWS.index(WRITE_64)


def padded(code: str) -> bytes:
    """An instruction and RET, padded to a row."""
    return (bytes.fromhex(code) + b"\xc3").ljust(SNIPPET_SIZE, b"\xf4")


SNIPPETS: Final = table(u8, b"".join(padded(code) for _, code in ROWS), align=16)


@machine
def run(row: u64) -> bool:
    """Run a snippet with the registers that PROBE holds; True when it came through without an exception."""
    PROBE.target = address_of(SNIPPETS).as_u64() + row * SNIPPET_SIZE
    return attempt() == NO_FAULT

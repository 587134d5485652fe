"""The BIOS stages before long mode: listings for Keystone, the only code of Terrane that is not in the language.

Stage 1 is the boot sector's code (440 bytes): it loads stage 2 to 0x8000 and has the TPM measure it. Stage 2 checks the processor, loads
the loader body and has it measured, opens A20, asks for the memory map, reads the Terrane partition to 16 MiB and enters long mode. Both
print refusals on the screen (INT 10h) and COM1, and stop. The memory map they share with the loader body is in docs/formats.md.

Measuring is the BIOS's pass-through of TPM commands (TCG PC Client BIOS 1.21, INT 1Ah AX=BB02h), into PCR 4. Where that fails, the machine
has no TPM, or no policy over PCR 4 will be met: both go on without it. The TPM's answers are kept for the body, which logs them.
"""

from __future__ import annotations

from typing import Final

from boot.baseline import BASELINE
from boot.stages import measuring, shared, stage1, stage2
from dsl.compiler.listing import assemble

SECTOR_SIZE: Final = 512
STAGE1_LIMIT: Final = 440
STAGE1_BASE: Final = 0x7C00
STAGE2_BASE: Final = 0x8000
STAGE2_SIZE: Final = 32768
STAGE2_LOADED: Final = 3072  # of it: what stage 1 loads, and has measured, zeros at its end included
STACK_TOP: Final = 0x7000  # of the 16-bit code; page tables take its place before long mode
BODY_BASE: Final = 0x10000
BODY_LIMIT: Final = 0x80000  # the loader body with BSS and stack ends at or before this
PARAMETERS_BASE: Final = 0x7000  # boot/parameters.py
BOUNCE_BASE: Final = 0x80000
MEASUREMENTS: Final = 0xE000  # boot/parameters.py
MEASUREMENT_SIZE: Final = 256
BODY_MEASUREMENT: Final = 0xEF00
MEASURED_OFFSET: Final = 2964  # of `measured` in BootParameters
TPM_INPUT: Final = 0xF000  # stage 2's commands, up to 0xFFFF
PIECE_SIZE: Final = 1024  # of the body, in one command
CHUNK_SECTORS: Final = 64  # 32 KiB: one bounce buffer, and never across a 64 KiB boundary
STAGING_BASE: Final = 0x1000000
STAGING_LIMIT: Final = 0xFEC00000  # staging lies below 4 GiB, and below the APICs
E820_CAPACITY: Final = 120
READ_ATTEMPTS: Final = 4

FIXED: Final = {  # what the listings call these, and what follows from them
    "stack": STACK_TOP,
    "attempts": READ_ATTEMPTS,
    "stage2": STAGE2_BASE,
    "stage2_end": STAGE2_BASE + STAGE2_LOADED,
    "parameters": PARAMETERS_BASE,
    "parameters_words": (STAGE1_BASE - PARAMETERS_BASE) // 2,
    "capacity": E820_CAPACITY,
    "measured": MEASURED_OFFSET,
    "measurements": MEASUREMENTS,
    "measurement": MEASUREMENT_SIZE,
    "answer": BODY_MEASUREMENT,
    "input": TPM_INPUT,
    "piece_words": PIECE_SIZE // 2,
    "piece_paragraphs": PIECE_SIZE // 16,
    "update_size": PIECE_SIZE + 37,
    "staging": STAGING_BASE,
    "chunk": CHUNK_SECTORS,
    "bounce": BOUNCE_BASE,
    "bounce_segment": BOUNCE_BASE >> 4,
    "body": BODY_BASE,
    "body_segment": BODY_BASE >> 4,
    "body_memory": BODY_LIMIT - BODY_BASE,
}


def emit_stage1(stage2_lba: int) -> bytes:
    """The boot sector's code: loads stage 2 from stage2_lba to 0x8000, has it measured, and jumps there.

    Raises ValueError for a place where it cannot lie.
    """
    sectors = STAGE2_LOADED // SECTOR_SIZE
    _check_range("stage 2", stage2_lba, sectors)
    first = {"segment": STAGE2_BASE >> 4, "asked": sectors}
    text = stage1.LOAD + shared.READ + shared.PRINT + measuring.EVENT
    return _assembled("stage 1", text, STAGE1_BASE, STAGE1_LIMIT, first | _halves("lba", stage2_lba))


def emit_stage2(partition_lba: int, partition_sectors: int, body_lba: int, body_size: int) -> bytes:
    """Stage 2: loads the body of body_size bytes from body_lba, has it measured, reads partition_sectors from partition_lba to 16 MiB,
    enters long mode and starts the body.

    Loaded at 0x8000. Raises ValueError for what cannot be loaded.
    """
    staging_size = partition_sectors * SECTOR_SIZE
    if STAGING_BASE + staging_size > STAGING_LIMIT:
        raise ValueError(f"partition: expected at most {STAGING_LIMIT - STAGING_BASE} bytes, found {staging_size}")
    if not PIECE_SIZE <= body_size <= BODY_LIMIT - BODY_BASE or body_size % PIECE_SIZE:
        raise ValueError(
            f"loader body: expected {PIECE_SIZE} to {BODY_LIMIT - BODY_BASE} bytes, in {PIECE_SIZE}s, found {body_size}"
        )
    _check_range("partition", partition_lba, partition_sectors)
    _check_range("loader body", body_lba, body_size // SECTOR_SIZE)
    in_order = (stage2.CHECKS, stage2.READ_BODY, measuring.MEASURE_BODY, stage2.MEMORY_MAP, stage2.READ_PARTITION)
    text = "".join(in_order) + stage2.LONG_MODE + stage2.DATA + _features() + shared.READ + shared.PRINT
    places = {
        "staging_size": staging_size,
        "sectors": partition_sectors,
        "segment": BODY_BASE >> 4,  # the first read is the body's
        "asked": 0,
        "body_end": (BODY_BASE + body_size) >> 4,
        "body_sectors": body_size // SECTOR_SIZE,
        "body_size": body_size,
    }
    places |= _halves("lba", body_lba) | _halves("partition", partition_lba)
    text = text.replace("{capacity_decimal}", str(E820_CAPACITY))
    return _assembled("stage 2", text, STAGE2_BASE, STAGE2_LOADED, places)


def _halves(name: str, lba: int) -> dict[str, int]:
    """The two doublewords of a place on the disk."""
    return {f"{name}_low": lba & 0xFFFFFFFF, f"{name}_high": lba >> 32}


def _assembled(name: str, text: str, base: int, limit: int, places: dict[str, int]) -> bytes:
    """The code of a stage. Raises ValueError where there is not enough room for it."""
    code = assemble(text, base, FIXED | places)
    if len(code) > limit:
        raise ValueError(f"{name}: expected at most {limit} bytes, found {len(code)}")
    return code


def _features() -> str:
    """The table that stage 2 walks: leaf, offset of the register in `answers`, bit, name; a zero leaf ends it."""
    rows = [
        f".long {leaf:#x}\n.byte {register * 4}, {bit}\n.word feature_{index}"
        for index, (_, leaf, register, bit) in enumerate(BASELINE)
    ]
    names = [f'feature_{index}: .asciz "{name}"' for index, (name, _, _, _) in enumerate(BASELINE)]
    return "\n".join(["", "features:", *rows, ".long 0", *names, ""])


def _check_range(name: str, lba: int, sectors: int) -> None:
    """Raise ValueError unless a range of sectors is one that a 48-bit disk can have."""
    if sectors <= 0 or lba <= 0 or lba + sectors > 1 << 48:
        raise ValueError(f"{name}: expected sectors between LBA 1 and 2**48, found {sectors} at {lba}")

"""The closed decoder: which MOV a guest used on absent memory (SDM Vol. 2A, chapter 2). Anything else is refused; it emulates nothing.

It knows MOV between a general register and memory (88-8B, A0-A3), MOV of an immediate to memory (C6 /0, C7 /0), MOVZX and MOVSX
(0F B6, B7, BE, BF), with segment, operand-size, address-size and REX prefixes. What address the guest meant is the processor's to say.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import Array, Failure, Record, Struct, machine, minimum, rounds, u8, u64

INSTRUCTION_LIMIT: Final = 15  # bytes
BUFFER_SIZE: Final = 32  # bytes to decode from: beyond the limit as many zeros as a look ahead needs
UNKNOWN_FORM: Final = 1  # failure: not one of the moves above, or cut short

REX_W: Final = 0x08
REX_R: Final = 0x04
MOV_FROM_REGISTER: Final = 0x88  # and 89
MOV_TO_REGISTER: Final = 0x8A  # and 8B
MOV_FROM_OFFSET: Final = 0xA0  # AL or eAX from moffs; and A1
MOV_TO_OFFSET: Final = 0xA2  # and A3
MOV_IMMEDIATE: Final = 0xC6  # and C7
TWO_BYTES: Final = 0x0F


class CodeSize(Record):
    """How the code segment sets the defaults."""

    is_64_bit: bool
    is_32_bit: bool  # the segment's D bit, outside 64-bit mode


class Move(Struct, size=8):
    """A decoded move: what decode_move makes of zeros. Widths in bytes: 1, 2, 4 or 8."""

    length: u8  # of the instruction, bytes
    register: u8  # 0 to 15, where a read goes
    source_width: u8  # read from memory
    target_width: u8  # written to the register
    is_write: bool  # to memory; then register and widths do not matter
    is_high_byte: bool  # AH, CH, DH or BH instead of SPL, BPL, SIL or DIL
    is_signed: bool  # how a narrower source is extended
    reserved: u8


class Prefixes(Record):
    """What stands before the opcode."""

    length: u64
    rex: u8  # 0: none
    operand_override: bool
    address_override: bool


class Addressing(Record):
    """The ModRM byte with all that belongs to it."""

    length: u64  # ModRM, SIB and displacement, bytes
    register: u8  # the reg field, without REX.R
    is_memory: bool


@machine
def is_segment_override(byte: u8) -> bool:
    """Say whether a byte is a segment prefix."""
    return byte == 0x26 or byte == 0x2E or byte == 0x36 or byte == 0x3E or byte == 0x64 or byte == 0x65


@machine
def read_prefixes(code: Array[u8], code_size: CodeSize) -> Prefixes:
    """Read the legacy prefixes that a plain move may have, then REX."""
    position = u64(0)
    operand_override = False
    address_override = False
    rex = u8(0)
    for _ in rounds(INSTRUCTION_LIMIT + 1):  # what follows the limit is no prefix, but zero
        byte = code[position]
        if byte == 0x66:
            operand_override = True
        elif byte == 0x67:
            address_override = True
        elif not is_segment_override(byte):
            break
        position += 1
    byte = code[position]
    if code_size.is_64_bit and byte & 0xF0 == 0x40:
        rex = byte
        position += 1
    return Prefixes(position, rex, operand_override, address_override)


@machine
def read_addressing(code: Array[u8], position: u64, is_16_bit: bool) -> Addressing:
    """Measure the ModRM byte at a position, with SIB and displacement."""
    modrm = code[position]
    mode = modrm >> 6
    base = modrm & 7
    register = (modrm >> 3) & 7
    length = u64(1)
    if mode == 3:
        return Addressing(length, register, False)
    if is_16_bit:
        if mode == 1:
            length += 1
        elif mode == 2 or base == 6:
            length += 2
        return Addressing(length, register, True)
    if base == 4:
        base = code[position + 1] & 7
        length += 1
    if mode == 1:
        length += 1
    elif mode == 2 or base == 5:
        length += 4
    return Addressing(length, register, True)


@machine
def operand_width(prefixes: Prefixes, code_size: CodeSize) -> u8:
    """The width of a full-size operand, in bytes."""
    if prefixes.rex & REX_W != 0:
        return u8(8)
    is_wide = code_size.is_64_bit or code_size.is_32_bit
    return u8(4) if is_wide != prefixes.operand_override else u8(2)


@machine
def address_width(prefixes: Prefixes, code_size: CodeSize) -> u64:
    """The width of an address, in bytes."""
    if code_size.is_64_bit:
        return u64(4) if prefixes.address_override else u64(8)
    return u64(4) if code_size.is_32_bit != prefixes.address_override else u64(2)


@machine
def decode_move(code: Array[u8], count: u64, code_size: CodeSize, move: Move) -> Failure | None:
    """Decode the instruction at the start of `code` into `move`, which is zero.

    code: BUFFER_SIZE bytes, zeros but for the first `count`: INSTRUCTION_LIMIT, or fewer if the next page cannot be read.
    """
    prefixes = read_prefixes(code, code_size)
    opcode = code[prefixes.length]
    position = prefixes.length + 1
    full_width = operand_width(prefixes, code_size)
    address_bytes = address_width(prefixes, code_size)
    immediate_bytes = u64(0)
    move.source_width = full_width if opcode & 1 != 0 else u8(1)
    move.target_width = move.source_width
    if opcode & 0xFC == MOV_FROM_OFFSET:
        move.is_write = opcode & 0xFE == MOV_TO_OFFSET
        position += address_bytes
    else:
        if opcode == TWO_BYTES:
            opcode = code[position]
            position += 1
            if opcode & 0xF6 != 0xB6:  # B6, B7, BE, BF
                return Failure(UNKNOWN_FORM)
            move.source_width = u8(2) if opcode & 1 != 0 else u8(1)  # the target is of full size: 0Fh is odd
            move.is_signed = opcode & 0x08 != 0
        elif opcode & 0xFE == MOV_IMMEDIATE:
            move.is_write = True
            immediate_bytes = minimum(u64(move.source_width), 4)
        elif opcode & 0xFC == MOV_FROM_REGISTER:
            move.is_write = opcode & 0xFE == MOV_FROM_REGISTER
        else:
            return Failure(UNKNOWN_FORM)
        addressing = read_addressing(code, position, address_bytes == 2)
        if not addressing.is_memory or (immediate_bytes != 0 and addressing.register != 0):
            return Failure(UNKNOWN_FORM)
        position += addressing.length + immediate_bytes
        move.register = addressing.register | (u8(8) if prefixes.rex & REX_R != 0 else u8(0))
    if position > count:
        return Failure(UNKNOWN_FORM)
    move.length = position.truncate(u8)
    if move.target_width == 1 and prefixes.rex == 0 and move.register >= 4:
        move.is_high_byte = True
        move.register -= 4
    return None


@machine
def merge_absent(move: Move, old: u64) -> u64:
    """What the register holds after a read of all ones, given what it held."""
    if move.is_high_byte:
        return old | 0xFF00
    value = u64(0xFFFF_FFFF_FFFF_FFFF)
    if not move.is_signed:
        value = value >> (64 - move.source_width * 8)
    if move.target_width == 8:
        return value
    if move.target_width == 4:
        return value & 0xFFFF_FFFF
    if move.target_width == 2:
        return (old & 0xFFFF_FFFF_FFFF_0000) | (value & 0xFFFF)
    return old | 0xFF

"""The closed decoder: which MOV a guest used on absent memory (SDM Vol. 2A, chapter 2). Anything else is refused; it emulates nothing.

It knows MOV between a general register and memory (88-8B, A0-A3), MOV of an immediate to memory (C6 /0, C7 /0), MOVZX and MOVSX
(0F B6, B7, BE, BF), with segment, operand-size, address-size and REX prefixes. What address the guest meant is the processor's to say.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import Array, Failure, Record, machine, u8, u64, upto

INSTRUCTION_LIMIT: Final = 15  # bytes
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


class Move(Record):
    """A decoded move. Widths in bytes: 1, 2, 4 or 8."""

    length: u64  # of the instruction, bytes
    is_write: bool  # to memory; then the rest does not matter
    register: u64  # 0 to 15, where a read goes
    is_high_byte: bool  # AH, CH, DH or BH instead of SPL, BPL, SIL or DIL
    source_width: u64  # read from memory
    target_width: u64  # written to the register
    is_signed: bool  # how a narrower source is extended


class Prefixes(Record):
    """What stands before the opcode."""

    length: u64
    rex: u8  # 0: none
    operand_override: bool
    address_override: bool


class Addressing(Record):
    """The ModRM byte with all that belongs to it."""

    length: u64  # ModRM, SIB and displacement, bytes
    register: u64  # the reg field, without REX.R
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
    for _ in upto(code.length, at_most=INSTRUCTION_LIMIT):
        byte = code[position]
        if byte == 0x66:
            operand_override = True
        elif byte == 0x67:
            address_override = True
        elif not is_segment_override(byte):
            break
        position += 1
    if code_size.is_64_bit and position < code.length:
        if code[position] & 0xF0 == 0x40:
            rex = code[position]
            position += 1
    return Prefixes(position, rex, operand_override, address_override)


@machine
def read_addressing(code: Array[u8], position: u64, is_16_bit: bool) -> Addressing | Failure:
    """Measure the ModRM byte at a position, with SIB and displacement."""
    if position >= code.length:
        return Failure(UNKNOWN_FORM)
    modrm = code[position]
    mode = modrm >> 6
    base = modrm & 7
    register = u64((modrm >> 3) & 7)
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
        if position + 1 >= code.length:
            return Failure(UNKNOWN_FORM)
        base = code[position + 1] & 7
        length += 1
        if mode == 0 and base == 5:
            length += 4
    elif mode == 0 and base == 5:
        length += 4
    if mode == 1:
        length += 1
    elif mode == 2:
        length += 4
    return Addressing(length, register, True)


@machine
def operand_width(prefixes: Prefixes, code_size: CodeSize) -> u64:
    """The width of a full-size operand, in bytes."""
    if prefixes.rex & REX_W != 0:
        return u64(8)
    is_wide = code_size.is_64_bit or code_size.is_32_bit
    return u64(4) if is_wide != prefixes.operand_override else u64(2)


@machine
def address_width(prefixes: Prefixes, code_size: CodeSize) -> u64:
    """The width of an address, in bytes."""
    if code_size.is_64_bit:
        return u64(4) if prefixes.address_override else u64(8)
    return u64(4) if code_size.is_32_bit != prefixes.address_override else u64(2)


@machine
def decode_move(code: Array[u8], code_size: CodeSize) -> Move | Failure:
    """Decode the instruction at the start of `code` (at most 15 bytes; fewer if the next page cannot be read)."""
    prefixes = read_prefixes(code, code_size)
    position = prefixes.length
    if position >= code.length:
        return Failure(UNKNOWN_FORM)
    opcode = code[position]
    position += 1
    full_width = operand_width(prefixes, code_size)
    width = full_width if opcode & 1 != 0 else u64(1)
    address_bytes = address_width(prefixes, code_size)
    if opcode & 0xFC == MOV_FROM_OFFSET:
        return finish_move(
            code, position + address_bytes, opcode & 0xFE == MOV_TO_OFFSET, u64(0), prefixes, width, width, False
        )
    is_extension = False
    is_signed = False
    if opcode == TWO_BYTES:
        if position >= code.length:
            return Failure(UNKNOWN_FORM)
        opcode = code[position]
        position += 1
        if opcode & 0xF6 != 0xB6:  # B6, B7, BE, BF
            return Failure(UNKNOWN_FORM)
        is_extension = True
        is_signed = opcode & 0x08 != 0
        width = u64(2) if opcode & 1 != 0 else u64(1)
    elif opcode & 0xFC != MOV_FROM_REGISTER and opcode & 0xFE != MOV_IMMEDIATE:
        return Failure(UNKNOWN_FORM)
    addressing = read_addressing(code, position, address_bytes == 2)
    if isinstance(addressing, Failure):
        return addressing
    if not addressing.is_memory:
        return Failure(UNKNOWN_FORM)
    position += addressing.length
    register = addressing.register | (u64(8) if prefixes.rex & REX_R != 0 else u64(0))
    if is_extension:
        return finish_move(code, position, False, register, prefixes, width, full_width, is_signed)
    if opcode & 0xFE == MOV_IMMEDIATE:
        if addressing.register != 0:
            return Failure(UNKNOWN_FORM)
        return finish_move(
            code, position + (width if width < 4 else u64(4)), True, register, prefixes, width, width, False
        )
    return finish_move(code, position, opcode & 0xFE == MOV_FROM_REGISTER, register, prefixes, width, width, False)


@machine
def finish_move(
    code: Array[u8],
    length: u64,
    is_write: bool,
    register: u64,
    prefixes: Prefixes,
    source_width: u64,
    target_width: u64,
    is_signed: bool,
) -> Move | Failure:
    """Check that the whole instruction was there, and name a high byte register."""
    if length > code.length:
        return Failure(UNKNOWN_FORM)
    is_high_byte = target_width == 1 and prefixes.rex == 0 and register >= 4
    number = register - 4 if is_high_byte else register
    return Move(length, is_write, number, is_high_byte, source_width, target_width, is_signed)


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
    return (old & 0xFFFF_FFFF_FFFF_FF00) | (value & 0xFF)

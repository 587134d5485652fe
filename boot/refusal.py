"""Why the loader refuses: one rule a row, each with the line that is printed.

In a line, `@` stands for what was expected, `$` for what was found (both numbers), `#` for the entry's place in the header.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from dsl.lang import Record, machine, table, u8, u64, upto
from dsl.std.print import Line, append_byte, append_decimal, append_hexadecimal

TEMPLATE_SIZE: Final = 96
EXPECTED_MARK: Final = u8(ord("@"))
FOUND_MARK: Final = u8(ord("$"))
ROW_MARK: Final = u8(ord("#"))


class Rule(Enum):
    """What was not as it must be; GOOD: nothing."""

    GOOD = u64(0)
    PARAMETERS_MAGIC = u64(1)
    PARAMETERS_VERSION = u64(2)
    PARAMETERS_RANGES = u64(3)
    STAGING_SIZE = u64(4)
    STAGING_MEMORY = u64(5)
    HEADER_SIGNATURE = u64(6)
    HEADER_MAGIC = u64(7)
    HEADER_VERSION = u64(8)
    HEADER_SIZE = u64(9)
    HEADER_COUNT = u64(10)
    HEADER_FLAGS = u64(11)
    HEADER_IMAGE_SIZE = u64(12)
    HEADER_RESERVED = u64(13)
    HEADER_UNUSED = u64(14)
    ENTRY_KIND = u64(15)
    ENTRY_ORDER = u64(16)
    ENTRY_ALIGNMENT = u64(17)
    ENTRY_EMPTY = u64(18)
    ENTRY_BEGIN = u64(19)
    ENTRY_END = u64(20)
    ENTRY_OVERLAP = u64(21)
    ENTRY_RESERVED = u64(22)
    ENTRY_TWICE = u64(23)
    DESCRIPTOR_SIZE = u64(24)
    SECRET_SIZE = u64(25)
    SECRET_NOT_DEBUG = u64(26)
    MONITOR_MISSING = u64(27)
    TPM_REQUIRED = u64(28)
    MEMORY_MONITOR = u64(29)
    MEMORY_ENTRY = u64(30)
    MEMORY_HANDOFF = u64(31)
    MEMORY_TABLES = u64(32)
    PROLOGUE_MAGIC = u64(33)
    PROLOGUE_BASE = u64(34)
    PROLOGUE_ENTRY = u64(35)
    PROLOGUE_TEXT = u64(36)
    PROLOGUE_READ_ONLY = u64(37)
    PROLOGUE_DATA = u64(38)
    PROLOGUE_MEMORY = u64(39)
    PROLOGUE_RESERVED = u64(40)
    CERTIFICATE = u64(41)
    UEFI_PAGING = u64(42)
    UEFI_LOADED_IMAGE = u64(43)
    UEFI_BOOT_PATH = u64(44)
    UEFI_PARTITION = u64(45)
    UEFI_STAGING = u64(46)
    UEFI_READ = u64(47)
    UEFI_LOADER = u64(48)
    UEFI_EXIT = u64(49)
    APPROVALS_SIZE = u64(50)
    TPM_FLOOR = u64(51)


TEMPLATES: Final = {
    Rule.GOOD: "loader: nothing is wrong",
    Rule.PARAMETERS_MAGIC: "loader: boot parameters: magic: expected @, found $",
    Rule.PARAMETERS_VERSION: "loader: boot parameters: version: expected @, found $",
    Rule.PARAMETERS_RANGES: "loader: boot parameters: memory ranges: expected 1 to @, found $",
    Rule.STAGING_SIZE: "header: Terrane partition: expected at least @ bytes, found $",
    Rule.STAGING_MEMORY: "memory: image as read: expected @ bytes of RAM, found $",
    Rule.HEADER_SIGNATURE: "header: signature: expected one by the key in the loader, found another",
    Rule.HEADER_MAGIC: "header: magic: expected @, found $",
    Rule.HEADER_VERSION: "header: version: expected @, found $",
    Rule.HEADER_SIZE: "header: header size: expected @, found $",
    Rule.HEADER_COUNT: "header: entry count: expected 1 to @, found $",
    Rule.HEADER_FLAGS: "header: flags: expected no bits but @, found $",
    Rule.HEADER_IMAGE_SIZE: "header: image size: expected at most @ bytes, found $",
    Rule.HEADER_RESERVED: "header: reserved bytes: expected zeros, found another at $",
    Rule.HEADER_UNUSED: "header: bytes after the last entry: expected zeros, found another at $",
    Rule.ENTRY_KIND: "header: entry #: kind: expected 1 to @, found $",
    Rule.ENTRY_ORDER: "header: entry #: order of kinds: expected at least @, found $",
    Rule.ENTRY_ALIGNMENT: "header: entry #: offset: expected a multiple of @, found $",
    Rule.ENTRY_EMPTY: "header: entry #: size: expected at least @, found $",
    Rule.ENTRY_BEGIN: "header: entry #: offset: expected at least @, found $",
    Rule.ENTRY_END: "header: entry #: size: expected at most @ bytes from there, found $",
    Rule.ENTRY_OVERLAP: "header: entry #: overlap: expected a place of its own, found entry $ there",
    Rule.ENTRY_RESERVED: "header: entry #: reserved: expected @, found $",
    Rule.ENTRY_TWICE: "header: entry #: kind: expected one entry of kind @, found $",
    Rule.DESCRIPTOR_SIZE: "header: entry #: descriptor size: expected @, found $",
    Rule.SECRET_SIZE: "header: entry #: development secret size: expected @, found $",
    Rule.SECRET_NOT_DEBUG: "header: entry #: development secret: expected header flag @, found $",
    Rule.MONITOR_MISSING: "header: monitor: expected @ entry, found $",
    Rule.TPM_REQUIRED: "device secret: the header wants a TPM's: expected TPM state @, found $",
    Rule.MEMORY_MONITOR: "memory: monitor: expected @ bytes of free RAM below 4 GiB, found at most $",
    Rule.MEMORY_ENTRY: "memory: entry #: expected @ bytes of free RAM below 4 GiB, found at most $",
    Rule.MEMORY_HANDOFF: "memory: handoff: expected @ bytes of free RAM below 4 GiB, found at most $",
    Rule.MEMORY_TABLES: "memory: page tables: expected @ bytes of free RAM below 4 GiB, found at most $",
    Rule.PROLOGUE_MAGIC: "monitor: magic: expected @, found $",
    Rule.PROLOGUE_BASE: "monitor: base: expected @, found $",
    Rule.PROLOGUE_ENTRY: "monitor: entry point: expected an offset below @, found $",
    Rule.PROLOGUE_TEXT: "monitor: end of text: expected a page boundary up to @, found $",
    Rule.PROLOGUE_READ_ONLY: "monitor: end of read-only data: expected a page boundary up to @, found $",
    Rule.PROLOGUE_DATA: "monitor: end of data: expected @, found $",
    Rule.PROLOGUE_MEMORY: "monitor: memory size: expected at least @, found $",
    Rule.PROLOGUE_RESERVED: "monitor: reserved bytes: expected zeros, found another at $",
    Rule.CERTIFICATE: "device secret: certificate: expected it made, found error $",
    Rule.UEFI_PAGING: "loader: paging: expected @ levels, found $",
    Rule.UEFI_LOADED_IMAGE: "loader: UEFI: expected to be told what was loaded, found no such protocol",
    Rule.UEFI_BOOT_PATH: "loader: UEFI: expected to come from a partition of a disk, found another device path",
    Rule.UEFI_PARTITION: "Terrane partition: expected one on the loader's disk, found none among $ block devices",
    Rule.UEFI_STAGING: "memory: image as read: expected @ bytes below 4 GiB, found UEFI status $",
    Rule.UEFI_READ: "Terrane partition: expected @ bytes read, found UEFI status $",
    Rule.UEFI_LOADER: "memory: loader: expected @ bytes below 4 GiB, found UEFI status $",
    Rule.UEFI_EXIT: "loader: ExitBootServices: expected UEFI status @, found $",
    Rule.APPROVALS_SIZE: "header: entry #: approval table size: expected @, found $",
    Rule.TPM_FLOOR: "header: security version: expected at least @ (the TPM's floor), found $",
}


def template_rows() -> bytes:
    """All lines in the order of their rules, zero-padded; raises ValueError for a rule without one."""
    rows = b""
    for number, rule in enumerate(Rule):
        line = TEMPLATES[rule].encode("ascii")
        if rule.value != number or len(line) > TEMPLATE_SIZE:
            raise ValueError(f"{rule}: expected number {number} and at most {TEMPLATE_SIZE} characters")
        rows += line.ljust(TEMPLATE_SIZE, b"\0")
    return rows


TEMPLATE_ROWS: Final = table(u8, template_rows())


class Refusal(Record):
    """The result of a check: the rule that was broken (or GOOD), the entry it is about, and two numbers for its line."""

    rule: Rule
    row: u64
    expected: u64
    found: u64


@machine
def good() -> Refusal:
    """Nothing is wrong."""
    return Refusal(Rule.GOOD, u64(0), u64(0), u64(0))


@machine
def append_refusal(line: Line, refusal: Refusal) -> None:
    """Append the rule's line with its numbers put in."""
    template = TEMPLATE_ROWS.slice(refusal.rule.value * TEMPLATE_SIZE, TEMPLATE_SIZE)
    for index in upto(TEMPLATE_SIZE):
        character = template[index]
        if character == 0:
            return
        if character == EXPECTED_MARK:
            append_hexadecimal(line, refusal.expected)
        elif character == FOUND_MARK:
            append_hexadecimal(line, refusal.found)
        elif character == ROW_MARK:
            append_decimal(line, refusal.row)
        else:
            append_byte(line, character)

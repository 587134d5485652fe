"""What the loader checks before it uses any byte of an image, header and every entry, as one function for the emulator."""

from __future__ import annotations

from typing import Final

from boot.header import ENTRY_CAPACITY, ImageHeader, check_header
from boot.image import check_signature, is_intact
from boot.refusal import Rule
from dsl.lang import HostVirtual, array_at, frame_array, machine, static, table, u8, u64, upto
from tests.boot.keys import PUBLIC_KEY

KEY: Final = table(u8, PUBLIC_KEY)
HEADER: Final = static(ImageHeader)
ENTRY_DIFFERS: Final = 1000  # and the entry's number


@machine
def check_whole_image(partition: HostVirtual, staged: u64) -> u64:
    """The number of the rule that was broken, ENTRY_DIFFERS plus the first entry that is not what the header says, or 0."""
    # Safe because the test maps `staged` bytes there, a header at least.
    HEADER.copy_from(ImageHeader.at(partition))
    refusal = check_signature(HEADER, KEY)
    if refusal.rule != Rule.GOOD:
        return u64(refusal.rule.value)
    refusal = check_header(HEADER, staged)
    if refusal.rule != Rule.GOOD:
        return u64(refusal.rule.value)
    found = frame_array(u8, 32)
    for row in upto(u64(HEADER.entry_count), at_most=ENTRY_CAPACITY):
        entry = HEADER.entries[row]
        # Safe because the header was checked: the entry lies inside what was read.
        if not is_intact(array_at(u8, partition + entry.offset, entry.size), entry, found):
            return row + ENTRY_DIFFERS
    return u64(0)

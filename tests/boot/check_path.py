"""What the loader does before it uses a byte of the monitor, as one function for the emulator."""

from __future__ import annotations

from typing import Final

from boot.header import ImageHeader, check_header
from boot.image import check_signature, is_intact
from boot.refusal import Rule
from dsl.lang import HostVirtual, array_at, frame_array, machine, static, table, u8, u64
from dsl.std.sha256_bulk import use_sha_extensions
from tests.boot.keys import PUBLIC_KEY

KEY: Final = table(u8, PUBLIC_KEY)
HEADER: Final = static(ImageHeader)
MONITOR_DIFFERS: Final = 1000


@machine
def check_path(partition: HostVirtual, staged: u64) -> u64:
    """Check header and monitor: the number of the rule that was broken, MONITOR_DIFFERS, or 0."""
    use_sha_extensions()
    # Safe because the test maps `staged` bytes there, a header at least.
    HEADER.copy_from(ImageHeader.at(partition))
    refusal = check_signature(HEADER, KEY)
    if refusal.rule != Rule.GOOD:
        return u64(refusal.rule.value)
    refusal = check_header(HEADER, staged)
    if refusal.rule != Rule.GOOD:
        return u64(refusal.rule.value)
    entry = HEADER.entries[0]
    found = frame_array(u8, 32)
    # Safe because the header was checked: the entry lies inside what was read.
    if is_intact(array_at(u8, partition + entry.offset, entry.size), entry, found):
        return u64(0)
    return u64(MONITOR_DIFFERS)

"""From the address of a failed check to its place in the source, by the table that the linker leaves in the program."""

from __future__ import annotations

from typing import Final

from dsl.lang import HostVirtual, check_files, check_places, image_base, machine, text, u64
from dsl.std.print import Line, append_decimal, append_padded_text, append_text

PLACE_SIZE: Final = 8  # u32 offset from the image's base, u16 file index, u16 line
FILE_SIZE: Final = 32  # zero-padded name


@machine
def append_place(line: Line, address: HostVirtual) -> bool:
    """Append file:line of the check whose ud2 lies at address; False (and nothing appended) if there is none."""
    places = check_places()
    files = check_files()
    offset = address - image_base()  # of an address below it, more than any row has
    low = u64(0)
    high = places.length // PLACE_SIZE
    while low < high:  # the rows are sorted by offset
        middle = (low + high) // 2
        row = u64(places.load_u32(middle * PLACE_SIZE))
        if row == offset:
            file = u64(places.load_u16(middle * PLACE_SIZE + 4))
            append_padded_text(line, files.slice(file * FILE_SIZE, u64(FILE_SIZE)))
            append_text(line, text(":"))
            append_decimal(line, u64(places.load_u16(middle * PLACE_SIZE + 6)))
            return True
        if row < offset:
            low = middle + 1
        else:
            high = middle
    return False

"""Find the line of a key in a TOML file, so that an error can name it (tomllib does not say)."""

from __future__ import annotations

import re

TABLE = re.compile(r"\s*(\[\[?)\s*([A-Za-z0-9_.\"'-]+)\s*\]\]?\s*(#.*)?$")
KEY = re.compile(r"\s*(?:\"([^\"]+)\"|'([^']+)'|([A-Za-z0-9_-]+))\s*(?:=|\.)")


def line_of(text: str, table: str, key: str, index: int = 0) -> int:
    """Line number, from 1, of `key` in `table` ("" for the top), the index-th of an array of tables.

    Where the key is not there: the line of its table's header, or 1.
    """
    current, seen, header_line = "", -1, 1
    for number, line in enumerate(text.splitlines(), start=1):
        header = TABLE.match(line)
        if header:
            current = header[2].strip("\"'")
            if current == table:
                seen += 1
                if seen == index:
                    header_line = number
            elif current == key and not table:
                return number
            continue
        found = KEY.match(line)
        if found and current == table and (not table or seen == index) and key in found.groups():
            return number
    return header_line

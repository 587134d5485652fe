"""A box.toml, read: values of the right types, and errors that name the file, the line and the key (docs/boxes.md)."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.toml_lines import line_of

TYPE_NAMES = {str: "a text", int: "a whole number", bool: "true or false", list: "a list", dict: "a table"}


class BoxError(UsageError):
    """A box.toml, or what it names, that cannot be lowered."""


class BoxFile:
    """A box.toml, read; `fail` names file, line and key."""

    def __init__(self, path: Path) -> None:
        """Read the file. Raises BoxError if it is not TOML."""
        self.path = path
        try:
            self.text = path.read_text("utf-8")
            self.values: dict[str, Any] = tomllib.loads(self.text)
        except OSError as error:
            raise BoxError(f"{path}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise BoxError(f"{path}: expected UTF-8 text: {error.reason} at byte {error.start}") from None
        except tomllib.TOMLDecodeError as error:
            raise BoxError(f"{path}: expected TOML: {error}") from None

    def fail(self, key: str, message: str, table: str = "", index: int = 0) -> BoxError:
        """An error at a key (or at its table where the key is absent)."""
        name = f"{table}.{key}" if table else key
        return BoxError(f"{self.path}:{line_of(self.text, table, key, index)}: {name}: {message}")

    def check_keys(self, values: dict[str, Any], known: dict[str, type], table: str = "", index: int = 0) -> None:
        """Refuse an unknown key and a value of a wrong type."""
        for key, value in values.items():
            if key not in known:
                raise self.fail(key, f"unknown key; expected one of {', '.join(known)}", table, index)
            right = isinstance(value, known[key]) and (known[key] is not int or not isinstance(value, bool))
            if not right:
                raise self.fail(key, f"expected {TYPE_NAMES[known[key]]}, found {value!r}", table, index)

    def required(self, key: str, values: dict[str, Any], table: str = "", index: int = 0) -> Any:
        """A value that must be there."""
        if key not in values:
            raise self.fail(key, "missing", table, index)
        return values[key]

    def number(self, key: str, low: int, high: int, default: int | None, table: str = "") -> int:
        """A number within bounds; without a default it must be there."""
        values = self.values[table] if table else self.values
        value = values.get(key, default) if default is not None else self.required(key, values, table)
        if not low <= value <= high:
            raise self.fail(key, f"expected a number from {low:#x} to {high:#x}, found {value:#x}", table)
        return int(value)

    def read(self, key: str, table: str) -> bytes:
        """The file that a key names, relative to the folder."""
        name = self.values[table][key]
        try:
            return (self.path.parent / str(name)).read_bytes()
        except OSError as error:
            raise self.fail(key, f"expected a readable file, found {name!r}: {error.strerror}", table) from None

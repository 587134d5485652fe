"""A folder as a mapping from names to bytes, for what can be made again: whole entries or none, and never more than a limit."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, MutableMapping
from pathlib import Path


class Entries(MutableMapping[str, bytes]):
    """One file an entry. `limit`: bytes in all; past it the entries written longest ago go, down to half of it."""

    def __init__(self, folder: Path, limit: int) -> None:
        """The folder is made when something is written."""
        self.folder, self.limit = folder, limit
        self.size: int | None = None  # bytes in the folder, once something was written

    def __getitem__(self, name: str) -> bytes:
        """Raises KeyError where there is no entry, or none that can be read."""
        try:
            return (self.folder / name).read_bytes()
        except OSError:
            raise KeyError(name) from None

    def __setitem__(self, name: str, content: bytes) -> None:
        """Write an entry at once: another process sees all of it or nothing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.replace(temporary, self.folder / name)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        if self.size is None:
            self.size = sum(size for _, size, _ in self._files())
        else:
            self.size += len(content)
        if self.size > self.limit:
            self._shrink()

    def __delitem__(self, name: str) -> None:
        try:
            (self.folder / name).unlink()
        except FileNotFoundError:
            raise KeyError(name) from None

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(path.name for _, _, path in self._files()))

    def __len__(self) -> int:
        return len(self._files())

    def _files(self) -> list[tuple[int, int, Path]]:
        """When each file was written, its size, its path."""
        found: list[tuple[int, int, Path]] = []
        if not self.folder.is_dir():
            return found
        with os.scandir(self.folder) as rows:
            for row in rows:
                try:
                    state = row.stat()
                except FileNotFoundError:  # another process took it away
                    continue
                found.append((state.st_mtime_ns, state.st_size, Path(row.path)))
        return found

    def _shrink(self) -> None:
        files = sorted(self._files())
        size = sum(size for _, size, _ in files)
        for _, length, path in files:
            if size <= self.limit // 2:
                break
            path.unlink(missing_ok=True)
            size -= length
        self.size = size

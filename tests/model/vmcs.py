"""A VMCS of the model: fields by encoding, with the names of `dsl.hw.vmx`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dsl.hw import vmx

WIDTHS = (16, 64, 32, 64)  # by bits 14:13 of the encoding; natural width is 64
NAMES = {value.encoding: name for name, value in vmx.FIELDS.items()}
READ_ONLY = 1  # bits 11:10 of the encoding: exit information


def width_of(encoding: int) -> int:
    """How many bits a field has."""
    return WIDTHS[encoding >> 13 & 3]


def is_read_only(encoding: int) -> bool:
    """Whether a field is exit information."""
    return encoding >> 10 & 3 == READ_ONLY


@dataclass
class Vmcs:
    """One VMCS. A field that was never written reads as zero, but `written` tells."""

    address: int = 0
    is_launched: bool = False
    fields: dict[int, int] = field(default_factory=dict)

    def __getitem__(self, name: Any) -> int:
        return self.fields.get(name.encoding, 0)

    def __setitem__(self, name: Any, value: int) -> None:
        if not hasattr(name, "encoding"):
            raise TypeError(f"expected a field of dsl.hw.vmx, found {name!r}")
        if not 0 <= value < 1 << width_of(name.encoding):
            raise ValueError(f"the VMCS field has {width_of(name.encoding)} bits, found {value:#x}")
        self.fields[name.encoding] = value

    def changed(self, **values: int) -> Vmcs:
        """A copy with other fields, by the names of `dsl.hw.vmx`."""
        copy = Vmcs(self.address, self.is_launched, dict(self.fields))
        for name, value in values.items():
            copy[vmx.FIELDS[name]] = value
        return copy

    def bit(self, name: Any, mask: int) -> bool:
        """Whether a field has one of these bits."""
        return self[name] & mask != 0

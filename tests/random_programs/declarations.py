"""The declarations of a random module: an Enum, Bits, Records, Structs in several layouts, static objects, tables."""

from __future__ import annotations

import random
from typing import Final

UNSIGNED: Final = ("u8", "u16", "u32", "u64")
SIGNED: Final = ("i8", "i16", "i32", "i64")
WORDS: Final = UNSIGNED + SIGNED
ADDRESSES: Final = ("HostPhysical", "HostVirtual", "GuestPhysical", "GuestVirtual")
TAINTS: Final = ("Untrusted", "Secret")
VOLATILE: Final = ("Device", "Shared")
WIDTH: Final = {**{name: int(name[1:]) for name in WORDS}, **dict.fromkeys(ADDRESSES, 64), "bool": 8, "Mode": 8}
IMPORTS: Final = '''"""Generated."""
from __future__ import annotations
from enum import Enum
from typing import Final
from dsl.lang import *
'''


def wrapped(kind: str) -> tuple[str, str]:
    """A qualified type's wrapper and what it wraps; ("", kind) for a plain one."""
    name, bracket, rest = kind.partition("[")
    return (name, rest[:-1]) if bracket and name in TAINTS + VOLATILE else ("", kind)


class Declarations:
    """What a module declares. Types are written as in source; an array is "Array[u16;8]", a reference "Ref[Inner]"."""

    def __init__(self, source: random.Random) -> None:
        self.random = source
        self.lines: list[str] = [IMPORTS]
        self.bits: dict[str, tuple[str, dict[str, tuple[str, int, int]]]] = {}
        self.records: dict[str, dict[str, str]] = {}
        self.structs: dict[str, dict[str, str]] = {}
        self.objects: dict[str, str] = {}
        self.constants: dict[str, str] = {}
        self.layouts: dict[str, tuple[int, int]] = {}  # a Struct's size and alignment
        self.members = ["ZERO", "ONE", "TWO", "FOUR"]
        self._declare_values()
        self._declare_structs()
        self._declare_objects()

    def source(self) -> str:
        return "\n".join(self.lines) + "\n"

    def _declare_values(self) -> None:
        """The Enum, two Bits classes and two Records."""
        values = (0, 1, 2, 4 if self.random.random() < 0.5 else 3)  # with 3, no two bits are outside the Enum
        members = [f"    {name} = u8({value})" for name, value in zip(self.members, values, strict=True)]
        self.lines += ["\nclass Mode(Enum):", *members]
        for name in ("Flags", "Leaf"):
            self._declare_bits(name)
        for name in ("Pair", "Answer"):
            kinds = [
                self.random.choice((*WORDS, "u64", "bool", "Flags", "HostPhysical"))
                for _ in range(self.random.randint(2, 4))
            ]
            self.records[name] = {f"part{index}": kind for index, kind in enumerate(kinds)}
            self.lines += [
                f"\nclass {name}(Record):",
                *(f"    {field}: {kind}" for field, kind in self.records[name].items()),
            ]

    def _declare_bits(self, name: str) -> None:
        storage = self.random.choice(UNSIGNED)
        fields: dict[str, tuple[str, int, int]] = {}
        self.lines.append(f"\nclass {name}(Bits, storage={storage}):")
        low = 0
        while low < WIDTH[storage] and len(fields) < 5:
            high = min(low + self.random.choice((0, 0, 1, 2, 3, 7, 15)), WIDTH[storage] - 1)
            count = high - low + 1
            kind = "bool" if count == 1 else "Mode" if count == 2 and self.random.random() < 0.6 else ""
            kind = kind or self.random.choice([word for word in UNSIGNED if WIDTH[word] >= count])
            field = f"field{len(fields)}"
            fields[field] = (kind, high, low)
            place = f"bit({low}" if count == 1 else f"bits({high}, {low}"
            default = {"bool": "True", "Mode": "Mode.ONE"}.get(kind, "1") if self.random.random() < 0.4 else ""
            self.lines.append(f"    {field}: {kind} = {place}{', default=' + default if default else ''})")
            low = high + 1 + self.random.choice((0, 0, 1, 3))
        self.bits[name] = (storage, fields)

    def _declare_structs(self) -> None:
        plain = [*WORDS, "u64", "bool", "Mode", "Flags", "Leaf", *ADDRESSES]
        inner = [self.random.choice(plain) for _ in range(self.random.randint(2, 5))]
        self._declare_struct("Inner", inner)
        hidden = [f"{self.random.choice(TAINTS)}[{self.random.choice(UNSIGNED)}]" for _ in range(2)]
        outer = [self.random.choice(plain) for _ in range(self.random.randint(3, 7))]
        seen = [f"{self.random.choice(VOLATILE)}[{self.random.choice(UNSIGNED)}]"]
        more = ["Inner", "Ref[Inner]", "Ref[Outer]", f"Array[{self.random.choice(WORDS)};{self.random.choice((4, 8))}]"]
        self._declare_struct("Outer", [*outer, *hidden, *seen, *more])

    def _declare_struct(self, name: str, kinds: list[str]) -> None:
        """Fields from the widest alignment down; or packed, in any order; or at explicit offsets."""
        how = self.random.choice(("natural", "natural", "packed", "explicit"))
        if how == "packed":
            self.random.shuffle(kinds)
        else:
            kinds = sorted(kinds, key=self.alignment, reverse=True)
        fields = {f"item{index}": kind for index, kind in enumerate(kinds)}
        offset, lines = 0, []
        for field, kind in fields.items():
            skip = self.alignment(kind) * self.random.choice((0, 0, 1, 2)) if how == "explicit" else 0
            offset += skip + (-(offset + skip) % self.alignment(kind) if how != "packed" else 0)
            lines.append(f"    {field}: {self._field(kind, f'{offset:#x}' if how == 'explicit' else '')}")
            offset += self.size(kind)
        align = max(map(self.alignment, kinds))
        end = offset if how == "packed" else -(-offset // align) * align
        if how == "natural" and end > offset:
            lines.append(f"    padding: Array[u8] = array({end - offset})")
        keywords = {"natural": f", size={end}", "packed": ", packed=True", "explicit": f", size={end}"}[how]
        self.lines += [f"\nclass {name}(Struct{keywords}):", *lines]
        self.structs[name] = fields
        self.layouts[name] = (end, 1 if how == "packed" else align)

    @staticmethod
    def _field(kind: str, offset: str) -> str:
        """What stands right of a field's name."""
        if kind.startswith("Array["):
            element, length = kind[6:-1].split(";")
            return f"Array[{element}] = array({length}{', at=' + offset if offset else ''})"
        text = f"{kind} | None" if kind.startswith("Ref[") else kind
        return f"{text} = at({offset})" if offset else text

    def _declare_objects(self) -> None:
        self.objects = {
            "FIRST": "Outer",
            "SECOND": "Outer",
            "SMALL": "Inner",
            "INNERS": "Array[Inner;4]",
            "BYTES": "Array[u8;32]",
        }
        self.objects["LARGE"] = "Array[u8;192]"
        self.objects["LONGS"] = "Array[u64;8]"
        self.objects["CELLS"] = f"Array[{self.random.choice((*WORDS, 'Flags', 'GuestPhysical'))};8]"
        for name, kind in self.objects.items():
            if kind.startswith("Array["):
                element, length = kind[6:-1].split(";")
                align = f", align={self.random.choice((16, 64, 4096))}" if self.random.random() < 0.3 else ""
                self.lines.append(f"{name}: Final = static_array({element}, {length}{align})")
            else:
                self.lines.append(f"{name}: Final = static({kind})")
        kind = self.random.choice(WORDS)
        edge = 1 << WIDTH[kind] - 1
        low, high = (0, 2 * edge - 1) if kind[0] == "u" else (-edge, edge - 1)
        values = [self.random.choice((low, high, high // 3, 0, 1, 7, self.random.randint(low, high))) for _ in range(8)]
        self.lines.append(f"TABLE: Final = table({kind}, {values})")
        self.constants["TABLE"] = f"Array[{kind};8]"
        self.lines.append(f"NUMBER: Final = {self.random.choice((1, 3, 100, 127))}")

    def size(self, kind: str) -> int:
        """Bytes in memory."""
        wrapper, inner = wrapped(kind)
        if wrapper:
            return self.size(inner)
        if kind.startswith("Array["):
            element, length = kind[6:-1].split(";")
            return self.size(element) * int(length)
        if kind in self.bits:
            return self.size(self.bits[kind][0])
        return self.layouts[kind][0] if kind in self.layouts else 8 if kind.startswith("Ref[") else WIDTH[kind] // 8

    def alignment(self, kind: str) -> int:
        """Natural alignment."""
        if kind.startswith("Array["):
            return self.alignment(kind[6:].partition(";")[0])
        return self.layouts[kind][1] if kind in self.layouts else self.size(kind)

    def places(self, text: str, kind: str) -> list[tuple[str, str]]:
        """Every value, array and reference that can be named from an object, with its type."""
        if kind not in self.structs:
            return [(text, kind)]
        found = [(text, kind)]
        for field, inner in self.structs[kind].items():
            found += self.places(f"{text}.{field}", inner)
        return found

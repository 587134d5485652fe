"""Small valid programs of the language, made from a seed: every width, loops, calls, arrays, Structs, Records, checks that may fail."""

from __future__ import annotations

import random
from typing import Final

UNSIGNED: Final = ("u8", "u16", "u32", "u64")
SIGNED: Final = ("i8", "i16", "i32", "i64")
WORDS: Final = UNSIGNED + SIGNED
WIDTH: Final = {name: int(name[1:]) for name in WORDS}
HEADER: Final = '''"""Generated."""
from __future__ import annotations
from typing import Final
from dsl.lang import *

class Pair(Record):
    first: u64
    second: i32

class Box(Struct):
    wide: u64
    narrow: u8
    flag: bool
    short: i16
    word: u32
    cells: Array[u16] = array(8)

BOX: Final = static(Box)
BYTES: Final = static_array(u8, 16)
LONGS: Final = static_array(u64, 4)
TABLE: Final = table(u32, [3, 0xFFFFFFFF, 0x80000000, 7, 0, 0x12345678, 1, 0x7FFFFFFF])

'''


class Generator:
    """Writes one module. Functions are f0, f1, ...; the entry runs the one whose number it gets."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.functions: list[tuple[str, list[str], str]] = []
        self.locals: dict[str, str] = {}
        self.arrays: dict[str, tuple[str, int]] = {}
        self.loop_depth = 0
        self.read_only: set[str] = set()
        self.budget = 0
        self.names = 0

    def module(self, count: int) -> str:
        """The source of a module of `count` functions and its entry."""
        parts = [HEADER, *(self.function(number) for number in range(count)), self.entry()]
        return "\n\n".join(parts)

    def entry(self) -> str:
        lines = ["@machine", "def entry(which: u64, a: u64, b: u64, c: u64) -> u64:"]
        for number, (name, kinds, result) in enumerate(self.functions):
            given = ", ".join(self.narrowed("abc"[position % 3], kind) for position, kind in enumerate(kinds))
            lines.append(f"    if which == {number}:")
            if result == "Pair":
                lines += [
                    f"        pair{number} = {name}({given})",
                    f"        return pair{number}.first ^ u64(pair{number}.second.as_unsigned())",
                ]
            else:
                lines.append(f"        return {self.to_u64(f'{name}({given})', result)} + BOX.wide + u64(BOX.cells[1])")
        return "\n".join([*lines, "    return u64(0)", ""])

    @staticmethod
    def narrowed(source: str, kind: str) -> str:
        if kind == "bool":
            return f"({source} & 1) == 1"
        if kind in UNSIGNED:
            return source if kind == "u64" else f"{source}.truncate({kind})"
        unsigned = "u" + kind[1:]
        return f"{source}.as_signed()" if kind == "i64" else f"{source}.truncate({unsigned}).as_signed()"

    @staticmethod
    def to_u64(text: str, kind: str) -> str:
        if kind in ("bool", "u8", "u16", "u32"):
            return f"u64({text})"
        if kind == "u64":
            return f"({text})"
        return f"i64({text}).as_unsigned()" if kind != "i64" else f"({text}).as_unsigned()"

    def pick(self, *choices: str) -> str:
        return self.random.choice(choices)

    def function(self, number: int) -> str:
        name = f"f{number}"
        kinds = [self.random.choice((*WORDS, "u64", "u32", "bool")) for _ in range(self.random.randint(1, 8))]
        result = self.random.choice((*WORDS, "u64", "u64", "bool", "Pair"))
        self.locals = {f"p{index}": kind for index, kind in enumerate(kinds)}
        self.arrays = {"BYTES": ("u8", 16), "LONGS": ("u64", 4), "BOX.cells": ("u16", 8)}
        self.loop_depth, self.read_only, self.budget, self.names = 0, set(), self.random.randint(4, 22), 0
        lines: list[str] = []
        for index in range(self.random.randint(0, 2)):
            element, length = self.random.choice(UNSIGNED), self.random.choice((2, 4, 8))
            lines.append(f"    buffer{index} = frame_array({element}, {length})")
            self.arrays[f"buffer{index}"] = (element, length)
        lines += self.block(1)
        lines.append("    return " + self.result(result))
        parameters = ", ".join(f"p{index}: {kind}" for index, kind in enumerate(kinds))
        self.functions.append((name, kinds, result))
        return "\n".join(["@machine", f"def {name}({parameters}) -> {result}:", *lines])

    def result(self, kind: str) -> str:
        return (
            f"Pair({self.expression('u64', 3)}, {self.expression('i32', 3)})"
            if kind == "Pair"
            else self.expression(kind, 3)
        )

    # statements

    def block(self, indent: int) -> list[str]:
        """Some statements; locals that they introduce are forgotten afterwards by the caller."""
        lines: list[str] = []
        for _ in range(self.random.randint(1, 4)):
            if self.budget > 0:
                self.budget -= 1
                lines += self.statement(indent)
        return lines or ["    " * indent + "pass"]

    def nested(self, indent: int) -> list[str]:
        outer = dict(self.locals)
        lines = self.block(indent)
        self.locals = outer
        return lines

    def statement(self, indent: int) -> list[str]:
        pad = "    " * indent
        choice = self.random.randrange(14)
        if choice < 4:
            kind = self.random.choice((*WORDS, "u64", "bool"))
            value = self.expression(kind, 4)
            self.names += 1
            name = f"v{self.names}"
            self.locals[name] = kind
            return [f"{pad}{name} = {value}"]
        if choice < 6:
            return [pad + self.assignment()]
        if choice < 7:
            return [pad + self.augmented()]
        if choice < 9:
            array, (element, length) = self.random.choice(list(self.arrays.items()))
            return [
                f"{pad}{array}[{self.index(length)}] {self.pick('=', '=', '+=', '^=')} {self.expression(element, 3)}"
            ]
        if choice < 10:
            field, kind = self.random.choice(
                (("wide", "u64"), ("narrow", "u8"), ("flag", "bool"), ("short", "i16"), ("word", "u32"))
            )
            return [f"{pad}BOX.{field} = {self.expression(kind, 3)}"]
        if choice < 12:
            lines = [f"{pad}if {self.expression('bool', 3)}:", *self.nested(indent + 1)]
            return lines + ([f"{pad}else:", *self.nested(indent + 1)] if self.random.random() < 0.6 else [])
        if self.loop_depth < 2:
            return self.loop(indent)
        if self.random.random() < 0.5:
            return [f"{pad}if {self.expression('bool', 2)}:", f"{pad}    {self.pick('break', 'continue')}"]
        return [f'{pad}assert {self.expression("bool", 2)} or {self.expression("bool", 2)}, "stops"']

    def loop(self, indent: int) -> list[str]:
        pad = "    " * indent
        self.names += 1
        name = f"turn{self.names}"
        outer = dict(self.locals)
        self.loop_depth += 1
        kind = self.random.choice(("u64", "u32", "u8"))
        if self.random.random() < 0.7:
            bound = (
                f"{self.expression(kind, 2)} % {self.random.randint(1, 7)}"
                if self.random.random() < 0.5
                else f"{kind}({self.random.randint(0, 6)})"
            )
            head = [f"{pad}for {name} in upto({bound}):"]
            self.locals[name] = kind
            self.read_only.add(name)
            lines = [*head, *self.block(indent + 1)]
        else:
            self.locals[name] = kind
            self.read_only.add(name)
            lines = [
                f"{pad}{name} = {kind}(0)",
                f"{pad}while {name} < {self.random.randint(1, 6)}:",
                f"{pad}    {name} += 1",
                *self.block(indent + 1),
            ]
        self.loop_depth -= 1
        self.locals = outer
        return lines

    def assignable(self) -> list[str]:
        return [name for name in self.locals if name not in self.read_only]

    def assignment(self) -> str:
        names = self.assignable()
        if not names:
            return "pass"
        name = self.random.choice(names)
        same = [other for other in names if self.locals[other] == self.locals[name] and other != name]
        if same and self.random.random() < 0.2:
            return f"{name}, {same[0]} = {same[0]}, {name}"
        return f"{name} = {self.expression(self.locals[name], 4)}"

    def augmented(self) -> str:
        names = [name for name in self.assignable() if self.locals[name] != "bool"]
        if not names:
            return "pass"
        name = self.random.choice(names)
        return f"{name} {self.pick('+=', '-=', '*=', '&=', '|=', '^=')} {self.expression(self.locals[name], 3)}"

    # expressions

    def index(self, length: int) -> str:
        kind = self.random.choice(UNSIGNED)
        if self.random.random() < 0.3:
            return str(self.random.randrange(length))
        if self.random.random() < 0.1:  # may fail its check; a constant would not compile
            return f"BOX.narrow & {2 * length - 1}"
        return f"{self.expression(kind, 2)} & {length - 1}"

    def literal(self, kind: str) -> str:
        if kind == "bool":
            return self.pick("True", "False")
        width = WIDTH[kind]
        low, high = (0, (1 << width) - 1) if kind[0] == "u" else (-(1 << width - 1), (1 << width - 1) - 1)
        edges = [low, high, high - 1, low + 1, 1, 2, 3, 7, high // 2, high // 3]
        value = self.random.choice(edges) if self.random.random() < 0.6 else self.random.randint(low, high)
        return f"{kind}({value})"

    def expression(self, kind: str, depth: int) -> str:
        """An expression of a type."""
        if depth <= 0 or self.random.random() < 0.15:
            return self.leaf(kind)
        if kind == "bool":
            return self.condition(depth)
        for _ in range(3):
            text = self.random.choice(self.MAKERS)(self, kind, depth - 1)
            if text:
                return text
        return self.leaf(kind)

    def leaf(self, kind: str) -> str:
        names = [name for name, other in self.locals.items() if other == kind]
        if names and self.random.random() < 0.75:
            return self.random.choice(names)
        fields = [
            f"BOX.{field}"
            for field, other in (("wide", "u64"), ("narrow", "u8"), ("flag", "bool"), ("short", "i16"), ("word", "u32"))
            if other == kind
        ]
        if fields and self.random.random() < 0.3:
            return fields[0]
        return self.literal(kind)

    def condition(self, depth: int) -> str:
        roll = self.random.randrange(6)
        if roll < 3:
            kind = self.random.choice(WORDS)
            return f"({self.expression(kind, depth - 1)} {self.pick('==', '!=', '<', '<=', '>', '>=')} {self.expression(kind, depth - 1)})"
        if roll == 3:
            return f"(not {self.expression('bool', depth - 1)})"
        return f"({self.expression('bool', depth - 1)} {self.pick('and', 'or')} {self.expression('bool', depth - 1)})"

    def binary(self, kind: str, depth: int) -> str:
        return (
            f"({self.expression(kind, depth)} {self.pick('+', '-', '*', '&', '|', '^')} {self.expression(kind, depth)})"
        )

    def with_literal(self, kind: str, depth: int) -> str:
        number = self.random.choice((1, 2, 3, 5, 16, 100, 127))
        return f"({self.expression(kind, depth)} {self.pick('+', '-', '*', '&', '|', '^')} {number})"

    def unary(self, kind: str, depth: int) -> str:
        return f"({self.pick('~') if kind[0] == 'u' else self.pick('-', '~')}{self.expression(kind, depth)})"

    def shift(self, kind: str, depth: int) -> str:
        width = WIDTH[kind]
        if self.random.random() < 0.5:
            return f"({self.expression(kind, depth)} {self.pick('<<', '>>')} {self.random.randrange(width)})"
        if self.random.random() < 0.1:
            return f"({self.expression(kind, depth)} {self.pick('<<', '>>')} (BOX.narrow & {2 * width - 1}))"
        count = self.random.choice(UNSIGNED)
        return (
            f"({self.expression(kind, depth)} {self.pick('<<', '>>')} ({self.expression(count, depth)} & {width - 1}))"
        )

    def wrapping(self, kind: str, depth: int) -> str:
        if kind[0] != "u":
            return ""
        name = self.pick("rotate_left", "rotate_right", "shift_left_wrapping", "shift_right_wrapping")
        count = (
            str(self.random.randrange(WIDTH[kind]))
            if self.random.random() < 0.5
            else self.expression(self.random.choice(UNSIGNED), depth)
        )
        return f"{name}({self.expression(kind, depth)}, {count})"

    def divide(self, kind: str, depth: int) -> str:
        divisor = self.literal(kind) if self.random.random() < 0.4 else f"({self.expression(kind, depth)} | 1)"
        if divisor in (f"{kind}(0)",):
            return ""
        if kind[0] == "u":
            return f"({self.expression(kind, depth)} {self.pick('//', '%')} {divisor})"
        return f"{self.pick('divide_truncating', 'remainder_truncating')}({self.expression(kind, depth)}, {divisor})"

    def bits(self, kind: str, depth: int) -> str:
        if kind[0] != "u":
            return ""
        names = ["count_leading_zeros", "count_trailing_zeros", "population_count"] + ["byte_swap"] * (kind != "u8")
        return f"{self.random.choice(names)}({self.expression(kind, depth)})"

    def convert(self, kind: str, depth: int) -> str:
        width, sign = WIDTH[kind], kind[0]
        narrower = [other for other in WORDS if WIDTH[other] < width and other[0] == sign]
        wider = [other for other in WORDS if WIDTH[other] > width and other[0] == sign]
        options = [
            f"({self.expression(('i' if sign == 'u' else 'u') + kind[1:], depth)}).{'as_unsigned' if sign == 'u' else 'as_signed'}()"
        ]
        if narrower:
            options.append(f"{kind}({self.expression(self.random.choice(narrower), depth)})")
        if wider and sign == "u":
            options.append(f"({self.expression(self.random.choice(wider), depth)}).truncate({kind})")
        if sign == "u":
            options.append(f"{kind}({self.expression('bool', depth)})")
        return self.random.choice(options)

    def choose(self, kind: str, depth: int) -> str:
        if self.random.random() < 0.4:
            return f"{self.pick('minimum', 'maximum')}({self.expression(kind, depth)}, {self.expression(kind, depth)})"
        return (
            f"({self.expression(kind, depth)} if {self.expression('bool', depth)} else {self.expression(kind, depth)})"
        )

    def element(self, kind: str, depth: int) -> str:
        found = [(name, length) for name, (element, length) in self.arrays.items() if element == kind]
        if kind == "u32":
            found.append(("TABLE", 8))
        if not found:
            return ""
        name, length = self.random.choice(found)
        return f"{name}[{self.index(length)}]"

    def bytes_load(self, kind: str, depth: int) -> str:
        if kind not in ("u16", "u32", "u64"):
            return ""
        name = self.pick("load_u16", "load_u32", "load_u64", "load_be32", "load_be64")
        if (name.rstrip("0123456789").endswith("be") and kind == "u16") or not name.endswith(kind[1:]):
            return ""
        return f"BYTES.{name}({self.expression('u64', depth)} & 7)"

    def high(self, kind: str, depth: int) -> str:
        if kind != "u64":
            return ""
        first, second = self.expression("u64", depth), self.expression("u64", depth)
        return self.random.choice((
            f"multiply_high({first}, {second})",
            f"multiply_wide({first}, {second}).{self.pick('low', 'high')}",
            f"add_with_carry({first}, {second}, {self.expression('u64', depth)} & 1).{self.pick('value', 'carry')}",
            f"subtract_with_borrow({first}, {second}, {self.expression('u64', depth)} & 1).{self.pick('value', 'carry')}",
        ))  # fmt: skip

    def call(self, kind: str, depth: int) -> str:
        found = [(name, kinds) for name, kinds, result in self.functions if result == kind]
        if not found or self.loop_depth > 1:
            return ""
        name, kinds = self.random.choice(found[-3:])
        return f"{name}({', '.join(self.expression(other, min(depth, 1)) for other in kinds)})"

    MAKERS: Final = (
        binary, binary, binary, with_literal, with_literal, unary, shift, shift, wrapping, divide, bits, convert, convert, choose,
        element, element, bytes_load, high, call, call,
    )  # fmt: skip

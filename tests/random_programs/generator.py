"""Random modules of whole programs, from a seed: statements, helpers, and the functions that are the programs' entries.

A program is one entry function with the helpers that it calls; the programs of a module share its declarations and are compiled together.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.random_programs.declarations import ADDRESSES, UNSIGNED, WORDS, Declarations, wrapped
from tests.random_programs.expressions import COMPARISONS, OPERATORS, Expressions, Helper
from tests.random_programs.walks import ELEMENT, states, walk

COMPONENTS = 9  # argument words that a caller of machine code may give


@dataclass(frozen=True)
class Made:
    """A module's source, and the names of the programs' entries in it."""

    source: str
    entries: tuple[str, ...]


def make_module(seed: int, programs: int) -> Made:
    """A module of this many programs."""
    return Generator(seed).module(programs)


class Generator(Expressions):
    """Writes one module."""

    def __init__(self, seed: int) -> None:
        source = random.Random(seed)
        super().__init__(source, Declarations(source))
        self.read_only: set[str] = set()
        self.budget = 0
        self.names = 0
        self.result = "None"

    def module(self, programs: int) -> Made:
        parts = [self.declared.source(), ELEMENT, self.handlers()]
        entries = []
        for number in range(programs):
            shared = list(self.helpers)
            for turn in range(self.random.choice((0, 1, 1, 2))):
                parts.append(self.helper(f"help{number}_{turn}"))
            entries.append(f"program{number}")
            parts.append(self.program(entries[-1]))
            self.helpers = shared  # a program's own helpers
        total = " + ".join(f"function_address({entry}).as_u64()" for entry in entries)
        parts.append(f"@machine\ndef everything() -> u64:\n    return {total}")
        return Made("\n\n".join(parts) + "\n", tuple(entries))

    # functions

    def handlers(self) -> str:
        """Functions that a dispatch table calls, by Enum and by number; a function that calls itself; one with Static parameters."""
        parts = [self.function(f"handler{number}", ["u64", "u32"], "u64", 3) for number in range(4)]
        parts.append(
            "BY_MODE: Final = dispatch({Mode.TWO: handler0, Mode.ZERO: handler1}, default=handler2)\n"
            "BY_NUMBER: Final = dispatch({7: handler3, 1: handler0, 100: handler2, 3: handler1, 9: handler3}, default=handler1)"
        )
        self.start(["u8", "u64"], 0)
        inner = f"again(p0 - 1, {self.expression('u64', 2)}) {self.pick(*OPERATORS)} {self.expression('u64', 1)}"
        parts.append(
            f"@machine(depth=7)\ndef again(p0: u8, p1: u64) -> u64:\n    if p0 == 0:\n        return {self.leaf('u64')}\n    return {inner}"
        )
        parts.append(self.function("chosen", ["u64", "Static[u8]", "Static[bool]"], "u64", 3))
        self.helpers += [
            Helper("chosen", ("u64", "Static[u8]", "Static[bool]"), "u64"),
            Helper("again", ("Small", "u64"), "u64"),
        ]
        self.helpers += [
            Helper("BY_MODE.call", ("Mode", "u64", "u32"), "u64"),
            Helper("BY_NUMBER.call", ("u8", "u64", "u32"), "u64"),
        ]
        self.helpers.append(Helper("BY_MODE.call", ("u8", "u64", "u32"), "u64"))
        return "\n\n".join(parts)

    def argument(self, kind: str, depth: int) -> str:
        if kind == "Small":  # of a recursion whose depth is 7: seldom one too many
            return f"({self.expression('u8', 1)} & {7 if self.chance(0.05) else 3})"
        return super().argument(kind, depth)

    def helper(self, name: str) -> str:
        element = self.pick("u8", "u64", "Inner")
        values = (*WORDS, "u64", "bool", "Mode", "Flags", *ADDRESSES, "Untrusted[u32]", "Secret[u64]")
        taken = (*values, "Inner", "Outer", f"Array[{element}]")
        kinds = [self.random.choice(taken) for _ in range(self.random.randint(1, 4))]
        result = self.random.choice(
            (*WORDS, "u64", "bool", "Mode", "Flags", "Leaf", "Pair", "Answer", "u64 | Failure", "u16 | Failure", "None")
        )
        text = self.function(name, kinds, result, self.random.randint(1, 4))
        self.helpers.append(Helper(name, tuple(kinds), result))
        return text

    def program(self, name: str) -> str:
        kinds = [self.random.choice((*WORDS, "u64", "u32", "bool", "Flags", *ADDRESSES, "Untrusted[u16]", "Secret[u64]"))
                 for _ in range(self.random.randint(1, COMPONENTS))]  # fmt: skip
        result = self.random.choice(
            (*WORDS, "u64", "u64", "bool", "Pair", "Answer", "Flags", "HostPhysical", "u64 | Failure")
        )
        return self.function(name, kinds, result, self.random.randint(3, 12))

    def start(self, kinds: list[str], budget: int) -> None:
        """A new function's scope."""
        self.locals = {
            f"p{index}": kind[7:-1] if kind.startswith("Static[") else kind for index, kind in enumerate(kinds)
        }
        self.loop_depth, self.read_only, self.budget, self.names = 0, set(), budget, 0
        self.read_only |= {f"p{index}" for index, kind in enumerate(kinds) if kind.startswith("Static[")}

    def function(self, name: str, kinds: list[str], result: str, budget: int) -> str:
        self.start(kinds, budget)
        self.locals = {
            name: f"{kind[:-1]};1]" if kind.startswith("Array[") else kind for name, kind in self.locals.items()
        }
        self.result = result
        lines = [f"    assert p{index}.length > 0" for index, kind in enumerate(kinds) if kind.startswith("Array[")]
        lines += [line for _ in range(self.random.choice((0, 0, 1, 2))) for line in self.frame(1)]
        lines += self.block(1)
        if result != "None":
            lines.append(f"    return {self.returned(3)}")
        parameters = ", ".join(f"p{index}: {kind}" for index, kind in enumerate(kinds))
        return "\n".join(["@machine", f"def {name}({parameters}) -> {result}:", *(lines or ["    pass"])])

    def returned(self, depth: int) -> str:
        """What a return statement gives."""
        kind, _, fallible = self.result.partition(" | ")
        if fallible and self.chance(0.3):
            return (
                f"Failure({self.random.randint(1, 99)})"
                if self.chance(0.6)
                else f"Failure({self.expression('u64', 1)} | 1)"
            )
        if kind in self.declared.records and self.chance(0.7):
            parts = self.declared.records[kind]
            return f"{kind}({', '.join(self.expression(part, depth - 1) for part in parts.values())})"
        return self.expression(kind, depth)

    # statements

    def new_name(self, stem: str = "v") -> str:
        self.names += 1
        return f"{stem}{self.names}"

    def frame(self, indent: int) -> list[str]:
        """A local object in the frame."""
        name = self.new_name("frame")
        if self.chance(0.4):
            self.locals[name] = self.pick("Inner", "Inner", "Outer")
            return [f"{'    ' * indent}{name} = {self.locals[name]}()"]
        element, length = self.random.choice((*WORDS, "u8", "Leaf")), self.random.choice((2, 4, 8, 32, 128))
        self.locals[name] = f"Array[{element};{length}]"
        return [f"{'    ' * indent}{name} = frame_array({element}, {length})"]

    def block(self, indent: int) -> list[str]:
        lines: list[str] = []
        for _ in range(self.random.randint(1, 4)):
            if self.budget > 0:
                self.budget -= 1
                lines += self.statement(indent)
        return lines or ["    " * indent + "pass"]

    def nested(self, indent: int) -> list[str]:
        """A block whose locals are forgotten behind it."""
        outer = dict(self.locals)
        lines = self.block(indent)
        self.locals = outer
        return lines

    def statement(self, indent: int) -> list[str]:
        pad = "    " * indent
        makers = (
            [self.declare] * 4 + [self.assign] * 3 + [self.change_element] * 2 + [self.change_field] * 3 + [self.use_bytes]
            + [self.use_structs] * 2 + [self.narrow, self.check] + [self.call_procedure]
        )  # fmt: skip
        roll = self.random.random()
        if roll < 0.16:
            lines = [f"{pad}if {self.expression('bool', 3)}:", *self.nested(indent + 1)]
            return lines + ([f"{pad}else:", *self.nested(indent + 1)] if self.chance(0.6) else [])
        if roll < 0.28 and self.loop_depth < 2:
            return self.loop(indent)
        if roll < 0.31 and self.loop_depth:
            return [f"{pad}if {self.expression('bool', 2)}:", f"{pad}    {self.pick('break', 'continue')}"]
        if roll < 0.33 and self.result != "None":
            return [f"{pad}if {self.expression('bool', 2)}:", f"{pad}    return {self.returned(2)}"]
        if roll < 0.36:
            return self.frame(indent)
        if roll < 0.40:
            return self.fallible(indent)
        if roll < 0.52 and self.loop_depth < 2:
            return self.random.choice((walk, states))(self, indent)
        return [pad + line for line in self.random.choice(makers)()]

    def declare(self) -> list[str]:
        kind = self.random.choice(
            (
                *WORDS,
                "u64",
                "u32",
                "bool",
                "Mode",
                "Flags",
                "Leaf",
                *ADDRESSES,
                "Pair",
                "Untrusted[u32]",
                "Secret[u64]",
                "Secret[u32]",
                "Inner",
            )
        )
        value = self.random.choice(self.references("Inner")) if kind == "Inner" else self.expression(kind, 3)
        name = self.new_name()
        self.locals[name] = kind
        if kind == "Inner":
            self.read_only.add(name)  # may refer to the frame: not to be given another
        if kind == "Pair":  # its parts are values of their own
            self.locals |= {f"{name}.{part}": other for part, other in self.declared.records[kind].items()}
            self.read_only |= {f"{name}.{part}" for part in self.declared.records[kind]}
        return [f"{name}{f': {kind}' if self.chance(0.1) else ''} = {value}"]

    def assignable(self) -> list[str]:
        return [name for name, kind in self.locals.items() if name not in self.read_only and self.is_value(kind)]

    def is_value(self, kind: str) -> bool:
        return not kind.startswith(("Array[", "Ref[")) and kind not in self.declared.structs

    def assign(self) -> list[str]:
        """To a local: a new value, a change, an exchange of two."""
        names = self.assignable()
        if not names:
            return ["pass"]
        name = self.random.choice(names)
        kind = self.locals[name]
        if kind in WORDS and self.chance(0.4):
            return [f"{name} {self.pick(*OPERATORS)}= {self.expression(kind, 3)}"]
        same = [other for other in names if self.locals[other] == kind and other != name]
        if same and self.chance(0.3):
            return [f"{name}, {same[0]} = {same[0]}, {name}"]
        return [f"{name} = {self.expression(kind, 3)}"]

    def change_element(self) -> list[str]:
        text, element, length = self.random.choice(
            [row for row in self.arrays(constant=False) if self.is_value(row[1])]
        )
        operator = self.pick("=", "=", "+=", "^=", "-=") if element in WORDS else "="
        return [f"{text}[{self.index(length)}] {operator} {self.expression(element, 3)}"]

    def change_field(self) -> list[str]:
        places = [(text, kind) for text, kind in self.reachable() if "." in text and text not in self.read_only]
        places = [
            (text, kind) for text, kind in places if not kind.startswith("Array[") and kind not in self.declared.structs
        ]
        text, kind = self.random.choice(places)
        if kind.startswith("Ref["):
            found = [name for name, other in self.declared.objects.items() if other == kind[4:-1]]
            found += [f"INNERS[{self.random.randrange(4)}]"] * (kind == "Ref[Inner]")
            chosen = self.random.choice(found)
            condition = self.expression("bool", 2)
            return [f"{text} = {self.pick('None', chosen, f'{chosen} if {condition} else None')}"]
        inner = wrapped(kind)[1] if kind.startswith(("Device", "Shared")) else kind
        operator = self.pick("=", "=", "+=", "|=") if inner in WORDS else "="
        return [f"{text} {operator} {self.expression(inner, 3)}"]

    def use_bytes(self) -> list[str]:
        """Words at byte offsets, copies and fills of long and short arrays, erasure."""
        name = self.pick("store_u16", "store_u32", "store_u64", "store_be32", "store_be64")
        kind = "u" + name.rpartition("_")[2].lstrip("ube")
        count = self.expression("u64", 1)
        return [self.random.choice((
            f"BYTES.{name}({self.expression('u8', 1)} & 15, {self.expression(kind, 2)})",
            f"LARGE.fill({self.expression('u8', 1)})",
            f"LARGE.slice({self.random.randrange(64)}, {count} & 127).fill({self.expression('u8', 1)})",
            f"LARGE.slice({self.random.randrange(90)}, {self.random.choice((5, 32, 96, 100))}).fill({self.expression('u8', 1)})",
            f"LONGS.fill({self.expression('u64', 1)})",
            "BYTES.copy_from(LARGE.slice(17, 32))",
            "LARGE.slice(0, 96).copy_from(LARGE.slice(96, 96))",
            f"LARGE.slice(0, {count} & 63).copy_from(LARGE.slice(100, {count} & 63))",
            f"BYTES.slice(1, {self.random.choice((3, 11))}).copy_from(LARGE.slice(50, 11))" if self.chance(0.1) else "erase(LONGS)",
            "copy_bytes(address_of(BYTES) + 3, address_of(LARGE), 13 * (u64(BYTES[0]) & 1))",
            f"fill_words(address_of(LARGE) + 8, {self.expression('u64', 1)}, {count} & 15)",
            f"_ = atomic_add_u32(address_of(LONGS) + 4, {self.expression('u32', 1)})",
        ))]  # fmt: skip

    def use_structs(self) -> list[str]:
        """Whole Structs: copies, zeroing, views; references that may be absent."""
        reference = self.random.choice(self.references("Inner"))
        optional = self.random.choice([text for text, kind in self.reachable() if kind.startswith("Ref[")])
        link, kind = self.new_name("link"), dict(self.reachable())[optional][4:-1]
        fields = [
            (field, other) for field, other in self.declared.structs[kind].items() if other in WORDS or other == "bool"
        ]
        field, other = self.random.choice(fields) if fields else ("", "")
        follow = [
            f"{link} = {optional}",
            f"if {link} is not None:",
            f"    {link}.{field} = {self.expression(other, 2)}" if field else "    pass",
        ]
        return self.random.choice((
            [f"{reference}.copy_from(INNERS[{self.index(4)}])"], [f"{reference}.clear()"], ["SECOND.copy_from(FIRST)"],
            [f"erase({self.pick('SECOND', 'SMALL')})"], follow, follow,
            [f"{link} = Inner.at(address_of({reference}))", *([f"{link}.item0 = {reference}.item0"])],
        ))  # fmt: skip

    def narrow(self) -> list[str]:
        """A value of the outside, brought below a limit."""
        kind, name, index = self.pick(*UNSIGNED), self.new_name("limited"), self.new_name("index")
        value = (
            f"{self.expression(f'Untrusted[{kind}]', 2)}.{self.pick('below', 'at_most')}({self.random.randint(1, 7)})"
        )
        self.locals[index] = kind
        return [
            f"{name} = {value}",
            f"{index} = {kind}(3)",
            f"if not isinstance({name}, Failure):",
            f"    {index} = {name}",
            f"    BYTES[{name}] = {self.expression('u8', 1)}",
        ]

    def check(self) -> list[str]:
        if self.chance(0.1):
            return [
                f"if {self.expression('bool', 2)} and BYTES[{self.random.randrange(32)}] == 77:",
                '    stop("stopped")',
            ]
        kind = self.pick(*UNSIGNED)
        compared = f"{self.expression(kind, 2)} {self.pick(*COMPARISONS)} {self.expression(kind, 1)}"
        return [f'assert {compared} or {self.expression("bool", 2)}, "stops"']

    def call_procedure(self) -> list[str]:
        found = [helper for helper in self.helpers if helper.result == "None"]
        if not found or self.loop_depth > 1:
            return self.assign()
        helper = self.random.choice(found)
        return [f"{helper.name}({', '.join(self.argument(part, 2) for part in helper.parameters)})"]

    def fallible(self, indent: int) -> list[str]:
        """A result that may be a Failure, and both ways on."""
        pad, name = "    " * indent, self.new_name("result")
        found = [helper for helper in self.helpers if helper.result.endswith("Failure")]
        if found and self.loop_depth < 2 and self.chance(0.6):
            helper = self.random.choice(found)
            kind = helper.result.partition(" ")[0]
            value = f"{helper.name}({', '.join(self.argument(part, 2) for part in helper.parameters)})"
        else:
            kind = self.pick(*WORDS)
            value = f"checked_{self.pick('add', 'subtract', 'multiply')}({self.expression(kind, 2)}, {self.expression(kind, 2)})"
        outer = dict(self.locals)
        lines = [f"{pad}{name} = {value}", f"{pad}if isinstance({name}, Failure):"]
        self.locals[f"{name}.code"] = "u64"
        self.read_only |= {f"{name}.code", name}
        lines += self.nested(indent + 1)
        self.locals = {**outer, name: kind}
        lines += [f"{pad}else:", *self.nested(indent + 1)]
        self.locals = outer
        return lines

    def loop(self, indent: int) -> list[str]:
        pad, kind, name = "    " * indent, self.pick("u64", "u32", "u8"), self.new_name("turn")
        outer = dict(self.locals)
        self.loop_depth += 1
        roll = self.random.randrange(4)
        if roll == 0:
            test = self.pick(f"{name} < {self.random.randint(1, 9)}", "True")
            lines = [f"{pad}{name} = {kind}(0)", f"{pad}while {test}:", f"{pad}    {name} += 1"]
            lines += [f"{pad}    if {name} > {self.random.randint(1, 9)}:", f"{pad}        break"]
        elif roll == 1:
            low, bound = self.expression(kind, 1), f"{kind}({self.random.randint(0, 40)})"
            lines = [f"{pad}for {name} in between({low} % 40, {bound}):"]
        else:
            bound = (
                f"{self.expression(kind, 2)} % {self.random.randint(1, 9)}"
                if self.chance(0.5)
                else f"{kind}({self.random.randint(0, 9)})"
            )
            most = ", at_most=8" if self.chance(0.3) and "%" in bound else ""
            if most and self.chance(0.1):  # seldom too often, which no constant may be
                bound, most = f"{kind}(BYTES[{self.random.randrange(32)}]) % 9", ", at_most=6"
            lines = [f"{pad}for {name} in upto({bound}{most}):"]
        self.locals[name] = kind
        self.read_only.add(name)
        if self.chance(0.3) and roll:  # straight through an array, as real loops go
            text, element, length = self.random.choice(
                [row for row in self.arrays(constant=False) if self.is_value(row[1])]
            )
            limit = length if self.chance(0.8) else length + 1
            lines = [
                f"{pad}for {name} in upto({kind}({limit})):" if length < 250 else lines[0],
                f"{pad}    {text}[{name}] = {self.expression(element, 2)}",
            ]
        lines += self.block(indent + 1)
        self.loop_depth -= 1
        self.locals = outer
        return lines

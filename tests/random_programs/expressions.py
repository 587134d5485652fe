"""Random expressions of a given type: every operator, library function, method and kind of place of the language."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.random_programs.declarations import ADDRESSES, UNSIGNED, WIDTH, WORDS, Declarations, wrapped

COMPARISONS: Final = ("==", "!=", "<", "<=", ">", ">=")
OPERATORS: Final = ("+", "-", "*", "&", "|", "^")


@dataclass(frozen=True)
class Helper:
    """A function that expressions may call: its parameters' types, and its result's."""

    name: str
    parameters: tuple[str, ...]
    result: str


class Expressions:
    """Makes expressions from what is in scope: `locals` (name to type), the module's objects, `helpers`."""

    def __init__(self, source: random.Random, declarations: Declarations) -> None:
        self.random = source
        self.declared = declarations
        self.locals: dict[str, str] = {}
        self.helpers: list[Helper] = []
        self.loop_depth = 0
        self.statics = [
            place for name, kind in declarations.objects.items() for place in declarations.places(name, kind)
        ]
        self.static_values: dict[str, list[str]] = {}  # texts by type; of device memory by the type inside
        for text, kind in self.statics:
            inner = wrapped(kind)[1] if kind.startswith(("Device", "Shared")) else kind
            self.static_values.setdefault(inner, []).append(text)
            if kind.startswith("Array["):
                element, length = kind[6:-1].split(";")
                elements = [f"{text}[{index}]" for index in range(0, int(length), max(1, int(length) // 4))]
                self.static_values.setdefault(element, []).extend(elements)

    def pick(self, *choices: str) -> str:
        return self.random.choice(choices)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    # places

    def reachable(self) -> list[tuple[str, str]]:
        """Every place that an expression may name, locals twice as likely as it were."""
        found = list(self.statics)
        for name, kind in self.locals.items():
            found += self.declared.places(name, kind) * 2
        return found

    def arrays(self, constant: bool = True) -> list[tuple[str, str, int]]:
        """Arrays in scope: text, element type, length."""
        known = self.reachable() + (list(self.declared.constants.items()) if constant else [])
        parts = [(text, *kind[6:-1].split(";")) for text, kind in known if kind.startswith("Array[")]
        return [(text, element, int(length)) for text, element, length in parts]

    def references(self, struct: str) -> list[str]:
        """Texts that refer to a Struct of a type."""
        found = [text for text, kind in self.reachable() if kind == struct]
        return [*found, f"INNERS[{self.index(4)}]"] if struct == "Inner" else found

    def index(self, length: int) -> str:
        """A literal, something masked, or, seldom, something that may be past the end."""
        if self.chance(0.35):
            return str(self.random.randrange(length))
        if self.chance(0.06):
            byte = f"BYTES[{self.random.randrange(32)}]"  # a constant would not compile
            return f"{byte} & {2 * length - 1}" if length <= 128 else f"u16({byte})"
        return f"{self.expression(self.pick(*UNSIGNED), 1)} & {length - 1}"

    # expressions

    def expression(self, kind: str, depth: int) -> str:
        """An expression of a type, `depth` levels deep at most."""
        if depth <= 0 or self.chance(0.12):
            return self.leaf(kind)
        makers = self.makers(kind)
        for _ in range(3):
            text = self.random.choice(makers)(kind, depth - 1)
            if text:
                return text
        return self.leaf(kind)

    def makers(self, kind: str) -> list[Callable[[str, int], str]]:
        wrapper, _ = wrapped(kind)
        if wrapper:
            return [self.tainted, self.tainted, self.choose if wrapper == "Untrusted" else self.selected]
        if kind == "bool":
            return [self.condition]
        if kind in ADDRESSES:
            return [self.address, self.address, self.choose]
        if kind in self.declared.bits:
            return [self.bits_value, self.choose, self.call]
        if kind in ("Mode", *self.declared.records):
            return [self.choose, self.call] if kind == "Mode" else [self.call]
        common = [
            self.binary,
            self.binary,
            self.literal_beside,
            self.unary,
            self.shift,
            self.divide,
            self.convert,
            self.choose,
        ]
        common += [self.element, self.field, self.call, self.public]
        if kind[0] == "u":
            common += [self.rotate, self.count_bits, self.convert, self.load_bytes]
        return common + ([self.high, self.wide, self.distance] if kind == "u64" else [])

    def leaf(self, kind: str) -> str:
        """A local, a place or a literal."""
        names = [name for name, other in self.locals.items() if other == kind]
        if names and self.chance(0.7):
            return self.random.choice(names)
        if self.chance(0.4):
            return self.literal(kind)
        found = self.static_values.get(kind, [])
        found = found + [text for name, struct in self.locals.items() if struct in self.declared.structs
                         for text, other in self.declared.places(name, struct) if other == kind]  # fmt: skip
        return self.random.choice(found) if found else self.literal(kind)

    def literal(self, kind: str) -> str:
        wrapper, inner = wrapped(kind)
        if wrapper:
            return f"{wrapper.lower()}({self.leaf(inner)})"
        if kind == "bool":
            return self.pick("True", "False")
        if kind == "Mode":
            return f"Mode.{self.pick(*self.declared.members)}"
        if kind in ADDRESSES:
            return f"{kind}({self.random.choice((0, 4095, 4096, 1 << 47, (1 << 64) - 1))})"
        if kind in self.declared.bits:
            return self.bits_value(kind, 0)
        if kind in self.declared.records:
            return f"{kind}({', '.join(self.leaf(part) for part in self.declared.records[kind].values())})"
        width = WIDTH[kind]
        low, high = (0, (1 << width) - 1) if kind[0] == "u" else (-(1 << width - 1), (1 << width - 1) - 1)
        edges = [low, high, high - 1, low + 1, 1, 2, 3, 7, high // 2, high // 3, 1 << self.random.randrange(width - 1)]
        return f"{kind}({self.random.choice(edges) if self.chance(0.7) else self.random.randint(low, high)})"

    def condition(self, _kind: str, depth: int) -> str:
        roll = self.random.randrange(10)
        if roll < 4:
            kind = self.random.choice((*WORDS, *ADDRESSES))
            return f"({self.expression(kind, depth)} {self.pick(*COMPARISONS)} {self.expression(kind, depth)})"
        if roll == 4:
            kind = self.random.choice(WORDS)
            return f"({self.expression(kind, depth)} {self.pick(*COMPARISONS)} {self.random.choice((0, 1, 5, 127))})"
        if roll == 5:
            return f"(not {self.expression('bool', depth)})"
        if roll == 6:
            return f"({self.expression('Mode', depth)} {self.pick('==', '!=')} {self.expression('Mode', depth)})"
        if roll == 7:
            return f"{self.expression(self.pick(*ADDRESSES), depth)}.is_aligned({1 << self.random.randrange(13)})"
        if roll == 8:
            return self.equal_arrays()
        return f"({self.expression('bool', depth)} {self.pick('and', 'or')} {self.expression('bool', depth)})"

    def equal_arrays(self) -> str:
        first, second = self.random.choice(
            (("BYTES.slice(0, 8)", "BYTES.slice(8, 8)"), ("BYTES.slice(1, 5)", 'text("\\0\\0\\0\\0\\0")'))
        )
        return f"{first}.equals({second})"

    def binary(self, kind: str, depth: int) -> str:
        return f"({self.expression(kind, depth)} {self.pick(*OPERATORS)} {self.expression(kind, depth)})"

    def literal_beside(self, kind: str, depth: int) -> str:
        number, value = (
            self.random.choice(("1", "2", "3", "5", "16", "100", "127", "NUMBER")),
            self.expression(kind, depth),
        )
        operator = self.pick(*OPERATORS)
        return f"({value} {operator} {number})" if self.chance(0.7) else f"({number} {operator} {value})"

    def unary(self, kind: str, depth: int) -> str:
        return f"({'~' if kind[0] == 'u' else self.pick('-', '~')}{self.expression(kind, depth)})"

    def shift(self, kind: str, depth: int) -> str:
        width, value = WIDTH[kind], self.expression(kind, depth)
        if self.chance(0.5):
            return f"({value} {self.pick('<<', '>>')} {self.random.randrange(width)})"
        if self.chance(0.05):
            return f"({value} {self.pick('<<', '>>')} (BYTES[3] & {2 * width - 1}))"
        if self.chance(0.2):
            return f"{self.pick('shift_left_wrapping', 'shift_right_wrapping')}({value}, {self.expression(self.pick(*UNSIGNED), depth)})"
        return f"({value} {self.pick('<<', '>>')} ({self.expression(self.pick(*UNSIGNED), depth)} & {width - 1}))"

    def rotate(self, kind: str, depth: int) -> str:
        count = (
            str(self.random.randrange(WIDTH[kind]))
            if self.chance(0.5)
            else self.expression(self.pick(*UNSIGNED), depth)
        )
        return f"{self.pick('rotate_left', 'rotate_right')}({self.expression(kind, depth)}, {count})"

    def divide(self, kind: str, depth: int) -> str:
        divisor = self.literal(kind) if self.chance(0.5) else f"({self.expression(kind, depth)} | 1)"
        if self.chance(0.05):
            element = "BYTES[5]" if kind[0] == "u" else "BYTES[5].as_signed()"
            divisor = element if WIDTH[kind] == 8 else f"{kind}({element})"  # may be zero: a failed check
        elif divisor == f"{kind}(0)":
            return ""
        if kind[0] == "u":
            return f"({self.expression(kind, depth)} {self.pick('//', '%')} {divisor})"
        return f"{self.pick('divide_truncating', 'remainder_truncating')}({self.expression(kind, depth)}, {divisor})"

    def count_bits(self, kind: str, depth: int) -> str:
        names = ["count_leading_zeros", "count_trailing_zeros", "population_count"] + ["byte_swap"] * (kind != "u8")
        return f"{self.random.choice(names)}({self.expression(kind, depth)})"

    def convert(self, kind: str, depth: int) -> str:
        """A change of sign or width, from bool, or from a literal of build time."""
        width, sign = WIDTH[kind], kind[0]
        narrower = [other for other in WORDS if WIDTH[other] < width and (other[0] == sign or sign == "i")]
        wider = [other for other in WORDS if WIDTH[other] > width and other[0] == sign]
        other_sign = ("i" if sign == "u" else "u") + kind[1:]
        options = [f"{self.expression(other_sign, depth)}.as_{'un' if sign == 'u' else ''}signed()"]
        if narrower:
            options.append(f"{kind}({self.expression(self.random.choice(narrower), depth)})")
        if wider:
            options.append(f"{self.expression(self.random.choice(wider), depth)}.truncate({kind})")
        if sign == "u":
            options.append(f"{kind}({self.expression('bool', depth)})")
        return self.random.choice(options)

    def choose(self, kind: str, depth: int) -> str:
        first, second = self.expression(kind, depth), self.expression(kind, depth)
        if kind in WORDS and self.chance(0.4):
            return f"{self.pick('minimum', 'maximum')}({first}, {second})"
        return f"({first} if {self.expression('bool', depth)} else {second})"

    def element(self, kind: str, depth: int) -> str:
        found = [(text, length) for text, element, length in self.arrays() if element == kind]
        if not found:
            return ""
        text, length = self.random.choice(found)
        return f"{text}[{self.index(length) if depth else 0}]"

    def field(self, kind: str, depth: int) -> str:
        """A field of a Bits value, an Enum's word, or a field of a Struct that an array holds."""
        found = [f"{self.expression(name, depth)}.{field}" for name, (_, fields) in self.declared.bits.items()
                 for field, (other, _, _) in fields.items() if other == kind]  # fmt: skip
        found += [
            f"INNERS[{self.index(4)}].{field}"
            for field, other in self.declared.structs["Inner"].items()
            if other == kind
        ]
        found += [f"{self.expression('Mode', depth)}.value"] * (kind == "u8")
        found += [
            f"{kind}({self.expression(name, depth)}.raw())"
            for name, (storage, _) in self.declared.bits.items()
            if storage == kind
        ]
        return self.random.choice(found) if found else ""

    def load_bytes(self, kind: str, depth: int) -> str:
        names = {"u16": ["load_u16"], "u32": ["load_u32", "load_be32"], "u64": ["load_u64", "load_be64"]}.get(kind)
        if not names:
            return ""
        offset = f"{self.expression('u64', depth)} & 15" if self.chance(0.9) else "BYTES[7] & 63"
        return f"BYTES.{self.random.choice(names)}({offset})"

    def high(self, _kind: str, depth: int) -> str:
        first, second, third = (self.expression("u64", depth) for _ in range(3))
        return self.random.choice((
            f"multiply_high({first}, {second})",
            f"multiply_wide({first}, {second}).{self.pick('low', 'high')}",
            f"add_with_carry({first}, {second}, {third} & 1).{self.pick('value', 'carry')}",
            f"subtract_with_borrow({first}, {second}, {third} & 1).{self.pick('value', 'carry')}",
        ))  # fmt: skip

    def wide(self, _kind: str, depth: int) -> str:
        """Constants of layouts, lengths, and atomic accesses."""
        value, place = self.expression("u64", depth), f"address_of(LONGS) + {8 * self.random.randrange(8)}"
        arrays = [text for text, _, _ in self.arrays()]
        return self.random.choice((
            f"({value} + size_of({self.pick('Inner', 'Outer')}))",
            f'({value} ^ offset_of(Outer, "item{self.random.randrange(3)}"))',
            f"({self.random.choice(arrays)}.length + {value})",
            f"atomic_add_u64({place}, {value})",
            f"atomic_exchange_u64({place}, {value})",
            f"atomic_compare_exchange_u64({place}, {self.expression('u64', 0)}, {value})",
            f"array_at(u64, {place.partition(' + ')[0]} + 8, 4)[{self.expression('u8', 0)} & 3]",
        ))  # fmt: skip

    def distance(self, _kind: str, depth: int) -> str:
        """What is the same in every world about addresses: differences, and the number in one."""
        kind = self.pick(*ADDRESSES)
        if self.chance(0.4):
            return f"(address_of(LONGS.slice({self.index(8)}, 0)) - address_of(LONGS))"
        if self.chance(0.5):
            return f"({self.expression(kind, depth)} - {self.expression(kind, depth)})"
        return f"{self.expression(kind, depth)}.as_u64()"

    def address(self, kind: str, depth: int) -> str:
        start = self.expression(kind, depth)
        return self.random.choice((
            f"{kind}({self.expression('u64', depth)})",
            f"({start} {self.pick('+', '-')} {self.expression('u64', depth)})",
            f"({start} {self.pick('+', '-')} {self.random.choice((1, 8, 4096))})",
            f"{start}.{self.pick('align_up', 'align_down')}({1 << self.random.randrange(22)})",
        ))  # fmt: skip

    def bits_value(self, kind: str, depth: int) -> str:
        """A Bits value: constructed, updated, or from its word. A field's value fits it, but seldom does not."""
        storage, fields = self.declared.bits[kind]
        if depth and self.chance(0.3):
            return f"{kind}.from_raw({self.expression(storage, depth)})"
        given = {name: self.bits_field(*field, depth) for name, field in fields.items()}
        if depth and self.chance(0.5):
            name = self.random.choice(list(given))
            return f"{self.expression(kind, depth)}.with_({name}={given[name]})"
        return f"{kind}({', '.join(f'{name}={value}' for name, value in given.items())})"

    def bits_field(self, kind: str, high: int, low: int, depth: int) -> str:
        if kind in ("bool", "Mode"):
            return self.leaf(kind) if kind == "bool" else "Mode.ONE"
        most = (1 << high - low + 1) - 1
        if most < 255 and self.chance(0.04):
            return "BYTES[9]" if kind == "u8" else f"{kind}(BYTES[9])"  # a constant that overflows would not compile
        return (
            f"({self.expression(kind, depth)} & {most})"
            if most < (1 << WIDTH[kind]) - 1
            else self.expression(kind, depth)
        )

    def call(self, kind: str, depth: int) -> str:
        found = [helper for helper in self.helpers if helper.result == kind]
        if not found or self.loop_depth > 1:
            return ""
        helper = self.random.choice(found[-4:])
        return f"{helper.name}({', '.join(self.argument(part, depth) for part in helper.parameters)})"

    def argument(self, kind: str, depth: int) -> str:
        if kind.startswith("Array["):
            element = kind[6:-1]
            found = [f"{text}.slice({self.index(length)}, 0)" if self.chance(0.05) else text
                     for text, other, length in self.arrays(constant=False) if other == element]  # fmt: skip
            return self.random.choice(found)
        if kind.startswith("Static["):
            return self.literal(kind[7:-1])
        if kind in self.declared.structs:
            return self.random.choice(self.references(kind))
        return self.expression(kind, min(depth, 1))

    # taints

    def tainted(self, kind: str, depth: int) -> str:
        """Arithmetic that keeps a taint."""
        wrapper, inner = wrapped(kind)
        left, right = self.expression(kind, depth), self.expression(kind if self.chance(0.6) else inner, depth)
        options = [
            f"({left} {self.pick(*OPERATORS)} {right})",
            f"(~{left})",
            f"({left} {self.pick('+', '&', '^')} {self.random.randint(1, 127)})",
        ]
        options.append(f"({left} {self.pick('<<', '>>')} {self.random.randrange(WIDTH[inner])})")
        wider = [word for word in UNSIGNED if WIDTH[word] > WIDTH[inner]]
        narrower = [word for word in UNSIGNED if WIDTH[word] < WIDTH[inner]]
        if wider:
            options.append(f"{self.expression(f'{wrapper}[{self.random.choice(wider)}]', depth)}.truncate({inner})")
        if narrower:
            options.append(
                f"widen_{wrapper.lower()}({inner}, {self.expression(f'{wrapper}[{self.random.choice(narrower)}]', depth)})"
            )
        if wrapper == "Secret":
            options.append(f"rotate_left({left}, {self.random.randrange(WIDTH[inner])})")
        if wrapper == "Secret" and inner == "u64":
            options.append(f"multiply_wide({left}, {right}).{self.pick('low', 'high')}")
            options.append(f"add_with_carry({left}, {right}, {left} & 1).{self.pick('value', 'carry')}")
            options.append(f"subtract_with_borrow({left}, {right}, {left} & 1).{self.pick('value', 'carry')}")
            options.append(
                f"constant_time_equal({self.expression('Secret[u32]', depth)}, {self.expression('Secret[u32]', depth)})"
            )
        if wrapper == "Untrusted":
            options.append(f"({left} {self.pick('//', '%')} {self.random.randint(1, 100)})")
        return self.random.choice(options)

    def selected(self, kind: str, depth: int) -> str:
        flag = f"({self.expression('Secret[u64]', depth)} & 1)"
        return f"constant_time_select({flag}, {self.expression(kind, depth)}, {self.expression(kind, depth)})"

    def public(self, kind: str, depth: int) -> str:
        """Out of a taint."""
        if kind[0] == "i":
            return ""
        if self.chance(0.5):
            return f'declassify({self.expression(f"Secret[{kind}]", depth)}, "a test")'
        return f'{self.expression(f"Untrusted[{kind}]", depth)}.trusted("a test")'

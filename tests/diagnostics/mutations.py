"""Changes to a valid source, by tokens, by syntax and by bytes: what people mistype, and what nobody would write."""

from __future__ import annotations

import ast
import copy
import io
import random
import tokenize
from collections.abc import Callable
from typing import Any, Final

NAMES: Final = (
    "a", "b", "i", "total", "u8", "u64", "i64", "Failure", "secret", "text", "len", "machine", "missing", "upto", "size_of", "stop", "self",
    "frame_array", "inner", "größe", "名前", "u128", "int", "range", "print", "None", "True", "Array", "Static", "Ref", "Struct",
)  # fmt: skip
NUMBERS: Final = (
    "0", "-1", "1", "255", "256", "65536", "0xFFFFFFFFFFFFFFFF", "1 << 64", "1.5", "1j", "1_000", "0o17", "10 ** 30", "9" * 300, "9" * 5000,
    "1 << 4096", "1 << 5000", "1 << (1 << 62)", "2 ** 4096 ** 2", "True",
)  # fmt: skip
EXPRESSIONS: Final = (
    "None", "True", "0", "-1", "300", "1 << 70", "'text'", "1.5", "b'x'", "[a]", "(a, b)", "a[0]", "a.value", "'ä' 'ö'", "untrusted(a)",
    "secret(a)", "Failure(1)", "lambda: a", "u8(a)", "a if b else a", "f'{a}'", "machine", "isinstance(a, Failure)", "a is None",
    "not a", "a and b", "a < b < a", "-a", "~a", "a @ b", "a ** b", "a / b", "a // 0", "a << 64", "stop(a)", "u64()", "u64(a, a)",
    "u64(x=a)", "u64(*a)", "u64(**a)", "text('')", "text('\\ud800')", "size_of(a)", "offset_of(a, 'x')", "erase(a)", "frame_array(a, 3)",
    "frame_array(u8, -1)", "frame_array(u8, 1 << 70)", "frame_array(u64, 1 << 40)", "vars", "upto(a)", "(x := a)", "{a: b}", "{a}", "...",
    "[i for i in a]", "(yield)", "await a", "a[1:2]", "a[...]", "u64(u64(u64(1)))", "ord('xx')", "between(a, b, 1)", "address_of(a)",
    "array_at(u8, a, b)", "checked_add(a, b)", "secret(secret(a))", "declassify(a, '')", "untrusted(a).below(b)", "__name__", "a.b.c.d",
    "table(u8, b'x')", "static(a)", "image_base()", "rdmsr(a)", "a is b", "a == None", "a in b", "constant_time_select(a, b, a)",
)  # fmt: skip
STATEMENTS: Final = (
    "a = b = a", "del a", "a: u64 = b", "a: missing", "for i in a: pass", "for i in upto(a, 3): pass", "for a in upto(b): break",
    "while a: pass", "while True: pass", "break", "continue", "return", "return a, b", "return None", "assert a", "assert True, a",
    "with a: pass", "import os", "global a", "nonlocal a", "def f(): pass", "class C: pass", "pass", "a += 1.5", "a.x += 1", "a[0] += 1",
    "(a, b) = a", "a, b = b", "[a] = b", "raise a", "try:\n    pass\nfinally:\n    pass", "match a:\n    case _: pass", "a", "a()",
    "if a: pass\nelif b: pass", "for i in upto(2):\n    pass\nelse:\n    pass", "total = None", "total, a = a, None", "a @= b", "yield a",
    "await a", "if isinstance(a, Failure) and b: pass", "*a, b = b", "a = a if a else a", "a = u64(1)", "b = frame_array(u8, 3)", "'text'",
    "async def g(): pass", "from x import *", "x = lambda: (yield)", "for _i in rounds(a): pass", "for _i in rounds(5): pass", "print(a)",
)  # fmt: skip
DECORATORS: Final = (
    "machine(naked=True)", "machine(depth=0)", "machine(depth='x')", "machine(depth=3)", "staticmethod", "property",
    "machine(model=machine)",
    "machine(naked=True, model=len)", "machine()", "missing", "machine(hardware_only=True)", "machine(bogus=1)",
)  # fmt: skip
ANNOTATIONS: Final = (
    "u8", "u64", "i32", "bool", "int", "None", "'u64'", "missing", "u64 | None", "u64 | Failure", "Failure", "Array[u8]", "Array",
    "Array[3]",
    "Static[u64]", "Static[Static[u8]]", "Ref[u8]", "Secret[u64]", "Untrusted[bool]", "Secret[Untrusted[u8]]", "list[u8]", "u8()", "1",
    "str",
    "Array[Array[u8]]", "u64 | u32", "Device[u32]", "'größe'", "[u8]", "type", "HostVirtual", "Array[Secret[u8]]", "lambda: u8",
)  # fmt: skip
PLACES: Final = (
    "bits(70, 3)",
    "bits(0, 3)",
    "bit(1)",
    "bits(5)",
    "array(0)",
    "array(9)",
    "array(1 << 70)",
    "at(1)",
    "5",
)
BYTES: Final = (
    b"\0",
    b"\xff",
    b"\xc3\xa4",
    b"\xe2\x80\xa8",
    b"\r",
    b"\t",
    b"\x0c",
    b"\xef\xbb\xbf",
    b"(",
    b")",
    b"\\",
    b"'",
    b"#",
    b":",
    b"\n",
    b"   ",
)


def mutate(text: str, source: random.Random) -> bytes:
    """The source with one to three changes of one kind."""
    kind = source.choice((by_tokens, by_tokens, by_syntax, by_syntax, by_syntax, by_bytes))
    changed: bytes = text.encode()
    for _ in range(source.choice((1, 1, 1, 2, 3))):
        changed = kind(changed, source)
    return changed


def by_bytes(text: bytes, source: random.Random) -> bytes:
    """A byte changed, a few deleted, copied or put in, or the end cut off."""
    at = source.randrange(len(text) + 1)
    size = source.choice((1, 1, 2, 7))
    match source.randrange(6):
        case 0:
            return text[:at] + text[at + size :]
        case 1:
            return text[:at] + source.choice(BYTES) + text[at:]
        case 2:
            return text[:at] + text[at : at + size] + text[at:]
        case 3:
            return text[:at] + bytes([source.randrange(256)]) + text[at + 1 :]
        case 4:
            other = source.randrange(len(text) + 1)
            return text[:at] + text[other : other + 30] + text[at:]
    return text[:at]


def by_tokens(text: bytes, source: random.Random) -> bytes:
    """A token deleted, copied, exchanged with another, or replaced by one of its sort."""
    try:
        tokens = list(tokenize.tokenize(io.BytesIO(text).readline))
    except (tokenize.TokenError, SyntaxError, ValueError):
        return by_bytes(text, source)
    lines = text.decode().splitlines(keepends=True)
    places = [
        token
        for token in tokens
        if token.string.strip() and token.start[0] == token.end[0] and 0 < token.start[0] <= len(lines)
    ]
    if not places:
        return by_bytes(text, source)
    token, other = source.choice(places), source.choice(places)
    replacement = {
        0: "",
        1: f"{token.string} {token.string}",
        2: other.string,
        3: f"{token.string} {other.string}",
        4: f"{'(' * 90}{token.string}{')' * 90}",
    }.get(source.randrange(9))
    if replacement is None:
        replacement = of_the_same_sort(token, places, source)
    line, column, end = token.start[0] - 1, token.start[1], token.end[1]
    lines[line] = lines[line][:column] + replacement + lines[line][end:]
    return "".join(lines).encode()


def of_the_same_sort(token: tokenize.TokenInfo, places: list[tokenize.TokenInfo], source: random.Random) -> str:
    if token.type == tokenize.NUMBER:
        return source.choice(NUMBERS)
    if token.type == tokenize.STRING:
        return source.choice(("''", "'ä'", "b'x'", "f'{a}'", "'\\0'", "'x' * 3", '"""\n"""'))
    if token.type == tokenize.NAME and source.random() < 0.5:
        return source.choice(NAMES)
    return source.choice([other.string for other in places if other.type == token.type])


# By syntax


def by_syntax(text: bytes, source: random.Random) -> bytes:
    """One change of the syntax tree."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return by_bytes(text, source)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list]
    if not functions:
        return by_bytes(text, source)
    change = source.choice(CHANGES)
    try:
        change(tree, source.choice(functions), source)
        return ast.unparse(ast.fix_missing_locations(tree)).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError, TypeError, SyntaxError):
        return by_bytes(text, source)


def inside(function: ast.FunctionDef) -> list[ast.AST]:
    return [node for statement in function.body for node in ast.walk(statement)]


def bodies(function: ast.FunctionDef) -> list[list[ast.stmt]]:
    nested = [node.body for node in inside(function) if isinstance(node, ast.If | ast.For | ast.While)]
    return [function.body, *nested]


def holders(node: ast.AST) -> list[tuple[str, int | None, ast.expr]]:
    """The places of expressions in a node."""
    found: list[tuple[str, int | None, ast.expr]] = []
    for name, value in ast.iter_fields(node):
        if isinstance(value, ast.expr):
            found.append((name, None, value))
        elif isinstance(value, list):
            found += [(name, index, part) for index, part in enumerate(value) if isinstance(part, ast.expr)]
    return found


def put(owner: Any, name: str, index: int | None, new: ast.expr) -> None:
    if index is None:
        setattr(owner, name, new)
    else:
        getattr(owner, name)[index] = new


def expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def replace_expression(tree: ast.Module, function: ast.FunctionDef, source: random.Random) -> None:
    """By another of the module, by one of the list, or by itself many times over."""
    owners = [(node, place) for node in inside(function) for place in holders(node)]
    if not owners:
        return
    owner, (name, index, old) = source.choice(owners)
    others = [part for other in tree.body for node in ast.walk(other) for _, _, part in holders(node)]
    new = source.choice(
        (copy.deepcopy(source.choice(others)), expression(source.choice(EXPRESSIONS)), many(old, source))
    )
    put(owner, name, index, new)


def many(old: ast.expr, source: random.Random) -> ast.expr:
    """An expression that holds an old one at the bottom of very many levels."""
    levels = source.choice((3, 60, 300, 900))
    new = copy.deepcopy(old)
    form = source.randrange(4)
    for _ in range(levels):
        match form:
            case 0:
                new = ast.BinOp(new, ast.Add(), copy.deepcopy(old) if levels < 9 else ast.Constant(1))
            case 1:
                new = ast.UnaryOp(ast.Invert(), new)
            case 2:
                new = ast.IfExp(ast.Constant(True), new, ast.Constant(1))
            case _:
                new = ast.Call(ast.Name("u64"), [new], [])
    return new


def change_statements(_tree: ast.Module, function: ast.FunctionDef, source: random.Random) -> None:
    """One put in, deleted, copied, exchanged with its neighbour, or put into very many blocks."""
    body = source.choice(bodies(function))
    at = source.randrange(len(body))
    match source.randrange(6):
        case 0 | 1:
            body[at:at] = ast.parse(source.choice(STATEMENTS)).body
        case 2:
            body[at] = ast.Pass()
        case 3:
            body.insert(source.randrange(len(body) + 1), copy.deepcopy(body[at]))
        case 4:
            other = source.randrange(len(body))
            body[at], body[other] = body[other], body[at]
        case _:
            for _ in range(source.choice((2, 15, 60))):
                body[at] = ast.If(ast.Constant(True), [body[at]], [])


def rename(tree: ast.Module, function: ast.FunctionDef, source: random.Random) -> None:
    names = [node for node in inside(function) if isinstance(node, ast.Name)]
    if names:
        known = [node.id for other in tree.body for node in ast.walk(other) if isinstance(node, ast.Name)]
        source.choice(names).id = source.choice((source.choice(NAMES), source.choice(known)))


def change_signature(_tree: ast.Module, function: ast.FunctionDef, source: random.Random) -> None:
    """Parameters, annotations, decorators, defaults, the function's name and kind."""
    arguments = function.args
    match source.randrange(8):
        case 0:
            function.returns = expression(source.choice(ANNOTATIONS))
        case 1 | 2 if arguments.args:
            source.choice(arguments.args).annotation = expression(source.choice(ANNOTATIONS))
        case 3:
            function.decorator_list = [expression(source.choice(DECORATORS))]
        case 4:
            arguments.args.append(ast.arg(source.choice(("a", "b", "größe")), expression(source.choice(ANNOTATIONS))))
        case 5 if arguments.args:
            arguments.defaults = [expression(source.choice(EXPRESSIONS))]
        case 6:
            arguments.vararg = ast.arg("rest")
        case _:
            function.name = source.choice(NAMES[:8])


def change_declaration(tree: ast.Module, _function: ast.FunctionDef, source: random.Random) -> None:
    """A field's type or place, a class's keyword, a module-level value; a definition that goes, or comes twice."""
    fields = [
        node
        for top in tree.body
        if isinstance(top, ast.ClassDef)
        for node in top.body
        if isinstance(node, ast.AnnAssign)
    ]
    values = [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
    roll = source.randrange(5)
    if roll == 0 and fields:
        source.choice(fields).annotation = expression(source.choice(ANNOTATIONS))
    elif roll == 1 and fields:
        source.choice(fields).value = expression(
            source.choice(("bits(70, 3)", "bits(0, 3)", "bit(1)", "array(0)", "array(9)", "at(1)", "5"))
        )
    elif roll == 2 and values:
        source.choice(values).value = expression(source.choice((*EXPRESSIONS, *NUMBERS[:16])))
    elif roll == 3:
        tree.body.insert(source.randrange(len(tree.body)), copy.deepcopy(source.choice(tree.body)))
    else:
        del tree.body[source.randrange(len(tree.body))]


Change = Callable[[ast.Module, ast.FunctionDef, random.Random], None]
CHANGES: Final[tuple[Change, ...]] = (
    replace_expression, replace_expression, replace_expression, change_statements, change_statements, rename, rename, change_signature,
    change_declaration,
)  # fmt: skip

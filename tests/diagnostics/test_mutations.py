"""No mistake makes the compiler fall over: programs with one thing changed at random compile, or get a CompileError."""

from __future__ import annotations

import ast
import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

from dsl.compiler import ir
from dsl.compiler.diagnostics import CompileError
from dsl.compiler.frontend import build_module
from tests.compiler import programs

SOURCE = Path(programs.__file__).read_text(encoding="utf-8")
NAMES = [
    "a", "b", "i", "total", "NODE", "OTHER", "PRIMES", "COUNTERS", "Kind", "Entry", "Node", "u8", "u64", "i64",
    "LIMIT", "HANDLERS", "Failure", "secret", "text", "len", "machine", "missing", "upto", "size_of", "stop",
    "frame_array", "inner", "found",
]  # fmt: skip
EXPRESSIONS = [
    "None", "True", "0", "-1", "300", "1 << 70", "'text'", "1.5", "b'x'", "[a]", "(a, b)", "a[0]", "a.value",
    "NODE.inner", "NODE.following", "PRIMES[a]", "Kind.FIRST", "Entry(present=True, kind=Kind.FIRST)", "untrusted(a)",
    "secret(a)", "Failure(1)", "fallible(a, b)", "lambda: a", "u8(a)", "a if b else a", "f'{a}'", "Kind", "machine",
    "Node.at(a)", "PRIMES.slice(9, 9)", "x", "isinstance(a, Failure)", "a is None", "not a", "a and b", "a < b < a",
    "-a", "~a", "a @ b", "a ** b", "a / b", "a // 0", "a << 64", "NODE.missing()", "stop(a)", "u64()", "u64(a, a)",
    "u64(x=a)", "step(*COUNTERS)", "HANDLERS.call()", "HANDLERS.call(1)", "Kind(a)", "Pair(a)", "Node(1)", "text('')",
    "size_of(a)", "offset_of(Node, 'x')", "erase(a)", "frame_array(a, 3)", "frame_array(u8, -1)", "vars",
    "PRIMES.fill(a)", "upto(a)",
]  # fmt: skip
STATEMENTS = [
    "a = b = a", "del a", "a: u64 = b", "a: missing", "NODE = a", "NODE.inner = NODE.inner", "PRIMES[0] = u16(1)",
    "for i in a: pass", "for i in upto(a, 3): pass", "for a in upto(b): break", "while a: pass", "break", "continue",
    "return", "return a, b", "return None", "assert a", "assert True, a", "with a: pass", "import os", "global a",
    "def f(): pass", "class C: pass", "pass", "a += 1.5", "a.x += 1", "a[0] += 1", "(a, b) = a", "a, b = b",
    "[a] = b", "raise a", "try:\n    pass\nfinally:\n    pass", "match a:\n    case _: pass", "a", "a()",
    "if a: pass\nelif b: pass", "for i in upto(2):\n    pass\nelse:\n    pass", "fallible(a, b)", "total = None",
    "total, a = a, None", "a @= b", "x: Kind = Kind.FIRST", "inner = NODE.inner\ninner.flag ^= True", "yield a",
    "await a", "if isinstance(a, Failure) and b: pass",
]  # fmt: skip


def change(tree: ast.Module, source: random.Random) -> str:
    """Change one place inside one function; its name."""
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    function = source.choice(functions)
    nodes = [node for statement in function.body for node in ast.walk(statement)]
    kind = source.randrange(4)
    if kind == 0:
        names = [node for node in nodes if isinstance(node, ast.Name)]
        if names:
            source.choice(names).id = source.choice(NAMES)
    elif kind == 1:
        owners = [node for node in nodes if any(isinstance(value, ast.expr) for value in vars(node).values())]
        owner = source.choice(owners)
        fields = [name for name, value in vars(owner).items() if isinstance(value, ast.expr)]
        setattr(owner, source.choice(fields), ast.parse(source.choice(EXPRESSIONS), mode="eval").body)
    elif kind == 2:
        bodies = [function.body] + [node.body for node in nodes if isinstance(node, ast.If | ast.For | ast.While)]
        body = source.choice(bodies)
        body[source.randrange(len(body) + 1) : 0] = ast.parse(source.choice(STATEMENTS)).body
    else:
        bodies = [function.body] + [node.body for node in nodes if isinstance(node, ast.If | ast.For | ast.While)]
        body = source.choice(bodies)
        body[source.randrange(len(body))] = ast.Pass()
    return "specialisations" if function.name == "specialised" else function.name


def load(name: str, text: str, folder: Path) -> ModuleType | None:
    """The text as a module; None if it is no Python, or its declarations are refused."""
    path = folder / f"{name}.py"
    path.write_text(text, encoding="utf-8")
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    try:
        specification.loader.exec_module(module)
    except Exception:  # the module itself raises: not the compiler's business
        return None
    return module


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 4))])
def test_mutated_programs_get_errors_never_a_traceback(seed: int, tmp_path: Path) -> None:
    """Sixty changed functions: legal IR, or a CompileError that shows its line."""
    source = random.Random(seed)
    refused = 0
    for number in range(60):
        tree = ast.parse(SOURCE)
        changed = change(tree, source)
        name = f"mutation_{seed}_{number}"
        module = load(name, ast.unparse(ast.fix_missing_locations(tree)), tmp_path)
        if module is None:
            continue
        try:
            for compiled in build_module(getattr(module, changed)).functions.values():
                ir.verify(compiled)
        except CompileError as error:
            refused += 1
            shown = all(diagnostic.source_line.strip() for diagnostic in error.diagnostics)
            assert shown, error  # noqa: PT017  # a valid program is as good as a refused one
        del sys.modules[name]
    assert refused > 10

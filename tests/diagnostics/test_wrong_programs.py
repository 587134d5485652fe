"""Programs that are wrong in ways of which the catalogue, one case for each code, says nothing: an error that names the cause."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dsl.compiler.diagnostics import CompileError
from dsl.compiler.link import LinkError
from dsl.compiler.pipeline import compile_function
from pipeline.program_file import load_file

HEADER = "from __future__ import annotations\nfrom typing import Final\nfrom dsl.lang import *\n"  # the program begins in line 4
ENTRY = "@machine\ndef entry(n: u64) -> u64:\n"
WRONG = {
    "another definition of the name": (
        (
            "@machine\ndef helper(n: u64) -> u64:\n    return n + 1\nfirst = helper\n"
            f"@machine\ndef helper(n: u64) -> u64:\n    return n + 2\n{ENTRY}    return first(n)\n"
        ),
        "4:1: error[signature]: 'helper' is not what its module defines",
    ),
    "a wrapper in the function's place": (
        (
            "import functools\ndef other(f):\n    @functools.wraps(f)\n    def inner(n):\n        return f(n)\n    return inner\n"
            f"@other\n{ENTRY}    return n\n"
        ),
        "6:5: error[signature]: 'entry' is not what its module defines",
    ),
    "a method": (
        f"class Thing:\n    @machine\n    def go(n: u64) -> u64:\n        return n\n{ENTRY}    return Thing.go(n)\n",
        "5:5: error[signature]: 'Thing.go' is not what",
    ),
    "no file": (
        'exec("@machine\\ndef entry(n: u64) -> u64:\\n    return n\\n")\n',
        "error[signature]: 'entry' is not what its module defines",
    ),
    "endless specialisation": (
        f"@machine\ndef f(n: u64, s: Static[u64]) -> u64:\n    return f(n, s + 1)\n{ENTRY}    return f(n, u64(3))\n",
        "6:12: error[static-argument]: 'f' is called with more than 256 values",
    ),
    "a long chain of calls": (
        "@machine\ndef f0(n: u64) -> u64:\n    return n\n"
        + "".join(f"@machine\ndef f{i}(n: u64) -> u64:\n    return f{i - 1}(n)\n" for i in range(1, 1200))
        + f"{ENTRY}    return f1199(n)\n",
        "error[recursion]: calls go more than 400 functions deep",
    ),
    "a generator": (
        f"{ENTRY}    yield n\n",
        "4:2: error[module-level]: TypeError: entry: a machine function has no yield",
    ),
    "an async function": (
        "@machine\nasync def entry(n: u64) -> u64:\n    return n\n",
        "4:2: error[module-level]: TypeError: entry: a machine function has no yield, and is not async",
    ),
    "an option that is none": (
        "@machine(fast=True)\ndef entry(n: u64) -> u64:\n    return n\n",
        "4:2: error[module-level]: TypeError: @machine has no option 'fast'; it has naked, depth",
    ),
    "a model that is no function": (
        '@machine(naked=True, model=3)\ndef entry(n: u64) -> u64:\n    asm("ret")\n',
        "4:2: error[module-level]: TypeError: @machine(model=3): expected a Python function",
    ),
    "assembly": (
        '@machine(naked=True)\ndef entry(n: u64) -> u64:\n    asm("nop; mov raxx, rdi; ret")\n',
        "6:9: error[naked-body]: the assembler does not take this: line 1: 'mov raxx, rdi'",
    ),
    "a kernel of a module without a source": (
        '@machine(kernel="math.sin")\ndef entry(n: u64) -> None:\n    pass\n',
        "5:1: error[kernel]: expected the dotted name of a function in a Python module, found 'math.sin'",
    ),
    "a frame that no stack holds": (
        f"{ENTRY}    room = frame_array(u8, 1 << 40)\n    return u64(room[n])\n",
        "6:12: error[literal-range]: Array[u8] takes 1,099,511,627,776 bytes of the stack",
    ),
    "more memory than an image has": (
        f"X: Final = static_array(u64, 1 << 33)\n{ENTRY}    return X[n]\n",
        "the program takes 68,719,484,928 bytes of memory (more_memory_than_an_image_has.X",
    ),
    "no bytes for a table": (
        f'K: Final = supplied(u8, 4, "my.key")\n{ENTRY}    return u64(K[n])\n',
        "supplied: 'my.key' is missing",
    ),
    "a Struct within itself": (
        f"class A(Struct):\n    a: A\n{ENTRY}    return u64(size_of(A))\n",
        "4:1: error[declaration]: A: it contains itself",
    ),
    "a Record within itself": (
        "class P(Record):\n    x: P\n@machine\ndef entry(p: P) -> u64:\n    return u64(1)\n",
        "4:1: error[declaration]: P: it contains itself",
    ),
    "a default value": (
        f"class A(Struct):\n    x: u64 = u64(5)\n{ENTRY}    return A().x\n",
        "5:5: error[declaration]: A.x: a Struct's fields have no default values",
    ),
    "a field named like a method": (
        f"class A(Struct):\n    clear: u64\n{ENTRY}    return A().clear\n",
        "5:5: error[declaration]: A.clear: every Struct has a method of this name",
    ),
    "a keyword of no Struct": (
        f"class A(Struct, length=4):\n    x: u64\n{ENTRY}    return A().x\n",
        "4:1: error[declaration]: A: a Struct takes size, align, packed, not length",
    ),
    "a Struct of nothing": (
        f"class A(Struct):\n    pass\n{ENTRY}    return u64(size_of(A))\n",
        "4:1: error[declaration]: A: a Struct has at least one field",
    ),
    "two Structs behind GS": (
        (
            "class Own(Struct):\n    self_address: HostVirtual\nA: Final = per_cpu(Own)\nB: Final = per_cpu(Own)\n"
            f"{ENTRY}    return A.current().self_address - B.current().self_address\n"
        ),
        "10:39: error[declaration]: the program has another per_cpu",
    ),
    "an exit": ("import sys\nsys.exit(3)\n", "5:1: error[module-level]: SystemExit: 3"),
    "an exception without a text": (
        'class E(Exception):\n    def __str__(self):\n        raise RuntimeError("no")\nraise E()\n',
        "E: <exception str() failed>",
    ),
    "a field of Bits named like a method": (
        f"class A(Bits, storage=u8):\n    raw: bool = bit(0)\n{ENTRY}    return n\n",
        "5:5: error[declaration]: A.raw: every Bits has a method of this name",
    ),
    "a Static parameter of the entry": (
        "@machine\ndef entry(n: Static[u64]) -> u64:\n    return n\n",
        "5:1: error[static-argument]: nothing gives 'n', a Static parameter, its value",
    ),
    "arrays of arrays": (
        "@machine\ndef entry(a: Array[Array[u8]]) -> u64:\n    return a[0].length\n",
        "Array[u8] has no place in memory",
    ),
    "an untrusted reference": (
        "class A(Struct):\n    x: u64\n@machine\ndef entry(a: Untrusted[A]) -> u64:\n    return a.x\n",
        "Untrusted[T] takes a word, bool, Bits, Enum or address, not A",
    ),
    "a public word compared as a secret": (
        f"{ENTRY}    return declassify(constant_time_equal(secret(n), n), 'a test')\n",
        "6:54: error[type-mismatch]: expected a Secret, found u64",
    ),
    "a load that looks at a secret": (
        "class A(Struct):\n    flag: Secret[bool]\n@machine\ndef entry(a: A) -> Secret[bool]:\n    return a.flag\n",
        "5:5: error[declaration]: A.flag: Secret[bool] has no place in memory, whose loads would look at it",
    ),
    "an element that is looked at": (
        "@machine\ndef entry(a: Array[Untrusted[bool]]) -> Untrusted[bool]:\n    return a[0]\n",
        "5:14: error[signature]: this annotation is no type of the language: Untrusted[bool] has no place in memory",
    ),
    "a field of a secret": (
        "class A(Bits, storage=u64):\n    on: bool = bit(0)\n@machine\ndef entry(a: Secret[A]) -> bool:\n    b = a.on\n    return True\n",
        "8:9: error[no-attribute]: Secret[A] has no 'on'",
    ),
    "Bits of what a guest chose": (
        (
            "class A(Bits, storage=u64):\n    on: bool = bit(0)\n"
            f"{ENTRY}    a = A.from_raw(untrusted(n))\n    return n\n"
        ),
        "8:20: error[type-mismatch]: expected u64, found Untrusted[u64]",
    ),
    "a method of what is inside a taint": (
        f"{ENTRY}    return u64(untrusted(GuestPhysical(n)).is_aligned(8))\n",
        "6:16: error[no-attribute]: Untrusted[GuestPhysical] has no 'is_aligned'",
    ),
    "the sign of a secret": (f"{ENTRY}    s = secret(n).as_signed()\n    return n\n", "6:9: error[no-attribute]"),
    "bits of what a guest chose, turned": (
        f"{ENTRY}    x = rotate_left(untrusted(n), 3)\n    return n\n",
        "6:9: error[untrusted-use]: Untrusted[u64] is an argument of rotate_left",
    ),
    "bits of what a guest chose, counted": (
        f"{ENTRY}    x = population_count(untrusted(n))\n    return n\n",
        "6:9: error[untrusted-use]: Untrusted[u64] is an argument of population_count",
    ),
    "a high half of what a guest chose": (
        f"{ENTRY}    x = multiply_high(untrusted(n), n)\n    return n\n",
        "6:9: error[untrusted-use]: Untrusted[u64] is part of multi-word arithmetic",
    ),
    "no reason": (
        f"{ENTRY}    return declassify(secret(n), ' ')\n",
        "6:34: error[type-mismatch]: expected a reason in words, found none",
    ),
    "a loop that is longer than it says": (
        f"{ENTRY}    for i in upto(3, at_most=2):\n        n += i\n    return n\n",
        "6:14: error[literal-range]: the loop runs 3 times, at most 2 are allowed",
    ),
    "an error behind a wrong call": (
        f"@machine\ndef f(n: u64) -> u64:\n    return n.foo\n{ENTRY}    return f(u8(1))\n",
        "6:12: error[no-attribute]: u64 has no 'foo'",
    ),
    "a Static parameter that is assigned": (
        f"@machine\ndef f(n: u64, s: Static[u64]) -> u64:\n    s = s + 1\n    return n + s\n{ENTRY}    return f(n, u64(3))\n",
        "6:9: error[unassigned]: 's' is a Static parameter, which is not assigned",
    ),
    "a table that is written": (
        f"T: Final = table(u8, b'abc')\n{ENTRY}    T[n] = u8(1)\n    return n\n",
        "7:5: error[type-mismatch]: a table or a text is read-only",
    ),
    "a text that is filled": (
        f"{ENTRY}    name = text('abc')\n    name.slice(1, 2).fill(u8(0))\n    return n\n",
        "7:5: error[type-mismatch]: a table or a text is read-only",
    ),
    "a table that is copied to": (
        f"T: Final = table(u8, b'abc')\n{ENTRY}    T.copy_from(text('xyz'))\n    return n\n",
        "7:5: error[type-mismatch]: a table or a text is read-only",
    ),
    "no Python in eval": ('eval("1 +* 2")\n', "4:1: error[module-level]: SyntaxError: invalid syntax"),
}


HELP = {  # a statement: the cure that its error names
    "match n:\n        case _:\n            n += 1": "use if and elif, or a dispatch(...)",
    "raise ValueError(n)": "failure is a value: return Failure(code)",
    "n = len(BYTES)": "a.length is an Array's length",
    "n = BYTES.length()": "it is a field: leave out the ()",
    "n = BYTES.lenght": "did you mean 'length'?",
    "n = min(n, n)": "minimum(a, b) and maximum(a, b) of dsl.lang",
    "n = rdmsr(u32(3))": "from dsl.lang import rdmsr",
    "print(n)": "dsl.std.print makes lines of texts and numbers, dsl.std.serial sends them",
    "n, m = (n, n) if n > 3 else (n, n)": "assign the Record to a local and read its fields",
    "x: u32 = 5": "give the literal a type: u32(5)",
    "x: u46 = n": "did you mean 'u64'?",
    "x: int = n": "a word, such as u64",
    "x = 7 if n > 3 else 8": "give the literal a type: u64(7)",
    "x = Flags(redy=True)": "did you mean 'ready'?",
    "n = n + LIST": "machine code has words, such as u64(1), and Enums of them",
    "n = LIST[0]": "a table(T, [...]) at module level is one",
    'asm("nop")': "it is the whole body of a function with @machine(naked=True)",
    "x = static_array(u8, 4)": "declare it at module level",
}


@pytest.mark.parametrize("statement", HELP)
def test_an_error_names_the_cure(statement: str, tmp_path: Path) -> None:
    """Python's own ways, names that were not imported or are misspelt: the help line says what the language has, and is the one error."""
    source = (
        "LIST = [1, 2]\nBYTES: Final = table(u8, b'abc')\n"
        f"class Flags(Bits, storage=u8):\n    ready: bool = bit(0, default=False)\n{ENTRY}    {statement}\n    return n\n"
    )
    path = tmp_path / "cured.py"
    path.write_text(HEADER.replace("*", "Array, Bits, asm, bit, machine, static_array, table, u8, u32, u64") + source)
    with pytest.raises(CompileError) as raised:
        compile_function(load_file(path, path.stem).entry)
    assert [error.help for error in raised.value.diagnostics] == [HELP[statement]]


@pytest.mark.parametrize("package", ["keystone", "capstone", "peachpy"])
def test_a_missing_assembler_is_named(package: str) -> None:
    """Whatever was loaded before: a process of its own, in which the package cannot be imported."""
    program = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from docs.language.primes import start\nfrom dsl.compiler.diagnostics import CompileError\n"
        "from dsl.compiler.pipeline import compile_function\n"
        "try:\n    compile_function(start)\nexcept CompileError as error:\n    print(error)\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False)
    assert done.stdout.startswith(package), done.stderr
    assert "expected to import it" in done.stdout
    assert "build.py setup installs it" in done.stdout


@pytest.mark.parametrize("name", WRONG)
def test_wrong_program_is_told_what_is_wrong(name: str, tmp_path: Path) -> None:
    """An error, never a traceback of another kind nor code that does something else than the Python."""
    source, expected = WRONG[name]
    path = tmp_path / f"{name.replace(' ', '_')}.py"
    path.write_text(HEADER + source)
    with pytest.raises((CompileError, LinkError)) as raised:
        compile_function(load_file(path, path.stem).entry)
    assert expected in str(raised.value)

"""What docs/language says is so: each example gives its results in three worlds, each refused one its errors; nothing is left out."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from dsl.compiler.diagnostics import CompileError
from dsl.compiler.frontend import build_module
from dsl.compiler.pipeline import compile_function
from dsl.lang.failure import CheckFailed, Stopped
from tests.language.examples import FOLDER, NAMES, SAID, Example, examples, load
from tests.model.world import Vmx
from tests.worlds import CPython, FailedCheck, Native, Unicorn, World

EXAMPLES = examples()
GOOD = [example for example in EXAMPLES if not example.is_error]
BAD = [example for example in EXAMPLES if example.is_error]
TEXT = "".join(path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.md")))
CASES = Path(__file__).resolve().parents[1] / "diagnostics" / "cases"


def machine_functions(module: ModuleType) -> list[Callable[..., object]]:
    """Those that a module defines, in order."""
    own = (value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__)
    return [value for value in own if hasattr(value, "__machine__")]


def outcome(world: World, example: Example, function: object, arguments: str) -> object:
    """The result, or "stops"."""
    try:
        return world.call(function, *eval(f"({arguments},)" if arguments else "()"))  # type: ignore[arg-type]
    except (CheckFailed, Stopped, FailedCheck):
        return "stops"


@pytest.mark.t1
@pytest.mark.parametrize("example", GOOD, ids=lambda example: example.name)
def test_example_keeps_its_promises(example: Example, tmp_path: Path, emu: Unicorn, native: Native, vmx: Vmx) -> None:
    """What its comments say in every world; and its own tests pass, with the fixtures that they take."""
    module = load(example, tmp_path)
    promises = example.promises()
    tests = [value for name, value in vars(module).items() if name.startswith("test_")]
    fixtures = {"emu": emu, "native": native, "vmx": vmx}
    for test in tests:
        test(**{name: fixtures[name] for name in inspect.signature(test).parameters})
    for promise in promises:
        function = getattr(module, promise.function)
        expected = "stops" if promise.result is None else eval(promise.result)
        hardware = getattr(function, "__machine__", None) is not None and "asm(" in example.source
        for world in (native, emu) if hardware else (CPython(), native, emu):
            found = outcome(world, example, function, promise.arguments)
            assert found == expected, f"{promise} in {type(world).__name__}"
    if not promises and not tests:
        compiled = machine_functions(module)
        assert compiled, "an example promises something, or has a machine function that compiles"
        for function in compiled:
            compile_function(function)


@pytest.mark.t0
@pytest.mark.parametrize("example", BAD, ids=lambda example: example.name)
def test_refused_example_gets_its_errors(example: Example, tmp_path: Path) -> None:
    wanted = example.refusals()
    assert wanted
    with pytest.raises(CompileError) as caught:
        build_module(machine_functions(load(example, tmp_path))[-1])
    assert SAID.findall(str(caught.value)) == wanted


@pytest.mark.t0
def test_there_are_examples() -> None:
    assert len(GOOD) >= 25
    assert len(BAD) >= 20
    assert sum(len(example.promises()) for example in GOOD) >= 60


@pytest.mark.t0
def test_every_error_is_explained() -> None:
    """Each code of the catalogue is shown by an example."""
    shown = {code for example in BAD for code in re.findall(r"error\[([a-z-]+)\]", example.source)}
    assert {path.name.removesuffix(".expected") for path in CASES.glob("*.expected")} - shown == set()


@pytest.mark.t0
def test_every_public_name_is_mentioned() -> None:
    """What programs may import stands in the reference; of the instruction table, one example an entry is enough."""
    assert {name for name in NAMES if not re.search(rf"\b{name}\b", TEXT)} == set()


@pytest.mark.t0
def test_the_tutorial_shows_the_program_that_runs() -> None:
    """primes.py stands in it, word by word."""
    shown = "".join(f"    {line}\n" if line else "\n" for line in (FOLDER / "primes.py").read_text().splitlines())
    assert shown in (FOLDER / "tutorial.md").read_text()


@pytest.mark.t0
def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (FOLDER / link).exists(), link

"""Mutants break one instruction as they say; a weak test lets some live, and they are reported; a thorough one kills them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import mutate
from pipeline.errors import OK, REFUSED, PipelineError, UsageError
from pipeline.mutants import CONDITION, CONSTANT, DROPPED, KINDS, REGISTER, Site, changes, mutants_of, sample
from pipeline.mutate import Explanation, Options, Result, Subject, read_explanations, run

pytestmark = pytest.mark.t1
FOLDER = "tests/pipeline/mutated/"
MOST = 80  # percent: of a sample so small that some equivalent ones weigh much
PIC_SCRIPTS = tuple(f"tests/model/test_source.py::test_code_and_source[pic-{seed}]" for seed in range(2))
PROGRAM = Subject(("tests.pipeline.mutated.",), (f"{FOLDER}program.py",), ())


def subject(test: str) -> Subject:
    """The small program with one of its tests."""
    return Subject(PROGRAM.functions, PROGRAM.sources, (FOLDER + test,))


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        ("7405", "je 7", {CONDITION: {"jne 7"}}),
        ("0f8500000000", "jne 6", {CONDITION: {"je 6"}}),
        ("0f94c0", "sete al", {CONDITION: {"setne al"}, REGISTER: {"sete cl", "sete dl"}}),
        ("83f805", "cmp eax, 5", {CONSTANT: {"cmp eax, 4", "cmp eax, 7"}, REGISTER: {"cmp ecx, 5", "cmp edx, 5"}}),
        ("488b4308", "mov rax, qword ptr [rbx + 8]", {CONSTANT: {"mov rax, qword ptr [rbx + 9]"}}),
        ("488b0511000000", "mov rax, qword ptr [rip + 0x11]", {CONSTANT: set()}),  # the linker's number
        ("48c1e807", "shr rax, 7", {CONSTANT: {"shr rax, 6", "shr rax, 0xf"}}),
        ("66c1c108", "rol cx, 8", {CONSTANT: {"rol cx, 9", "rol cx, 0xc"}}),
        ("c3", "ret", {}),
    ],
)
def test_a_flip_is_what_the_decoder_says(code: str, text: str, expected: dict[str, set[str]]) -> None:
    """Conditions are inverted, constants and registers changed; a shift by 71 instead of 7 is no mutant."""
    found: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for change in changes(bytes.fromhex(code), text):
        found[change.kind].add(change.text)
        assert len(change.applied(bytes.fromhex(code))) == len(code) // 2
    for kind, texts in expected.items():
        assert texts <= found[kind], (kind, found[kind])
    assert {"shr rax, 0x47", "rol cx, 0x18"}.isdisjoint(found[CONSTANT])
    assert not any("rip" in text for text in found[CONSTANT])
    assert not any("sp" in text for text in found[REGISTER])


def test_a_sample_is_a_part_and_always_the_same() -> None:
    """For one seed."""
    sites = [Site("f", offset, b"\x83\xc0\x05", "add eax, 5", "", 0) for offset in range(0, 90, 3)]
    everything = list(mutants_of(sites))
    assert {mutant.change.kind for mutant in everything} == {DROPPED, CONSTANT, REGISTER}
    assert sample(everything, 10, 1) == sample(everything, 10, 1) != sample(everything, 10, 2)
    assert set(sample(everything, 10, 1)) < set(everything)
    assert sample(everything, 10_000, 1) == everything


def test_a_check_that_cannot_fail_is_not_left_out() -> None:
    """Nothing could tell: VMREAD of a field that exists, with a current VMCS, succeeds. Its inversion is a mutant like any other."""
    read, check = Site("f", 0, b"\x0f\x78\xc1", "vmread rcx, rax", "", 0), Site("f", 3, b"\x76\x05", "jbe 0xa", "", 0)
    kinds = {mutant.change.kind for mutant in mutants_of([read, check]) if mutant.site is check}
    assert kinds == {CONDITION}
    assert DROPPED in {mutant.change.kind for mutant in mutants_of([check])}


def test_a_weak_test_is_shown_what_it_misses_and_a_thorough_one_misses_less() -> None:
    """What never mattered to the weak one survives, by line and text, and its score is below what is enough."""
    weak, thorough = (run(name, subject(f"test_{name}.py"), Options(0, 1, 1, 20)) for name in ("weak", "thorough"))
    assert weak.total == len(weak.rows) == thorough.total > 20
    assert any(row["source"].startswith("if byte < limit") for row in weak.survivors()), "the limit never mattered"
    text = "\n".join(mutate.survivors(weak))
    assert f"{FOLDER}program.py:" in text
    assert "tests pass" in text
    assert weak.score() < mutate.ENOUGH
    assert weak.score() + 10 < thorough.score()


def test_what_survived_is_run_again_alone(tmp_path: Path) -> None:
    """By the places in an earlier result; a file that is none is an error."""
    weak = run("weak", subject("test_weak.py"), Options(0, 1, 1, 20))
    path = tmp_path / "weak.json"
    path.write_text(json.dumps([mutate.as_values(weak)]))
    again = run("weak", subject("test_weak.py"), Options(1, 2, 1, 20, mutate.read_survivors(path)["weak"]))
    assert weak.survivors()
    assert again.survivors() == weak.survivors()
    assert len(again.rows) < len(weak.rows)
    for text, message in {
        "[": "what mutate --json prints",
        '[{"subject": "std"}]': "'survivors'",
        "[]": "found none",
    }.items():
        path.write_text(text)
        with pytest.raises(UsageError, match=rf"weak\.json: expected.*{message}"):
            mutate.read_survivors(path)


def test_a_sample_of_some_sources() -> None:
    """Of those alone that are asked for; where there are none, that is an error."""
    result = run("weak", subject("test_weak.py"), Options(3, 1, 1, 20, within=f"{FOLDER}program"))
    assert len(result.rows) == 3 < result.total
    with pytest.raises(UsageError, match="expected mutants in dsl/std/, found none"):
        run("weak", subject("test_weak.py"), Options(3, 1, 1, 20, within="dsl/std/"))


def test_tests_that_fail_by_themselves_are_an_error(tmp_path: Path) -> None:
    """They say nothing about mutants."""
    failing = tmp_path / "test_failing.py"
    failing.write_text(
        "import pytest\n\n\n@pytest.mark.t1\ndef test_it() -> None:\n    raise ValueError('by itself')\n"
    )
    with pytest.raises(PipelineError, match=r"(?s)expected tests that pass without a mutant.*by itself"):
        run("failing", Subject(("none.",), ("none",), (str(failing),)), Options(0, 1, 1, 20))


def row(outcome: str, kind: str = CONSTANT, function: str = "f", source: str = "a = b") -> dict[str, object]:
    """A row as tests/mutation.py writes it, with what is looked at here."""
    return {
        "outcome": outcome,
        "kind": kind,
        "function": function,
        "origin": function,
        "source": source,
        "file": "x.py",
        "line": 1,
        "tests": 1,
        "offset": 4,
        "before": "nop",
        "after": "nop",
        "is_of_check": False,
    }


def test_scores_and_explanations() -> None:
    """Equivalent mutants do not count, accepted ones do; an explanation that explains nothing is found."""
    equivalent = Explanation("f", ("a = b",), (CONSTANT,), True, "never read")
    accepted = Explanation("g", ("a = b",), (CONSTANT,), False, "rare")
    rows = (
        [row("killed")] * 6 + [row("survived")] * 2 + [row("survived", function="g")] * 2 + [row("unreached", REGISTER)]
    )
    population = [row("", function=name) | {"count": count} for name, count in (("f", 9), ("g", 2))]
    result = Result("x", 100, rows, 1.0, [equivalent, accepted], population)
    assert len(result.equivalent()) == 2
    assert result.score() == pytest.approx(100 * 6 / 9)
    assert not result.stale()
    rare, gone = (Explanation("f", (text,), (CONSTANT,), True, "r") for text in ("rare", "gone"))
    result.explanations = [equivalent, accepted, rare, gone]
    result.population.append(row("", source="rare") | {"count": 2})
    result.rows.append(row("killed", source="rare"))
    assert result.stale() == [gone]
    result.rows.append(row("killed", source="rare"))  # now all of its mutants were run
    assert result.stale() == [rare, gone]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("equivalent = true", r"survivor 1: expected the keys .*, found \['equivalent'\]"),
        ('kinds=["broken"]\nequivalent=true\nreason="r"\nlines.f=["l"]', r"expected kinds of .*, found \['broken'\]"),
        ('kinds=["dropped"]\nequivalent=true\nreason=" "\nlines.f=["l"]', "expected a reason, found none"),
        ('kinds=["dropped"]\nequivalent=true\nreason="r"\nlines.f=[]', "expected source lines by function, found none"),
    ],
)
def test_an_explanation_says_everything(tmp_path: Path, text: str, message: str) -> None:
    """Keys, kinds and a reason."""
    path = tmp_path / "mutants.toml"
    path.write_text(f"[[survivor]]\n{text}\n")
    with pytest.raises(UsageError, match=message):
        read_explanations(path)


def test_explanations_of_the_tree_are_read() -> None:
    """The file that is kept; a row explains lines of several functions."""
    found = read_explanations()
    assert found
    assert all(explanation.lines and explanation.reason for explanation in found)


def test_the_verdict(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused below the score, or with a stale explanation; an unknown subject is named."""
    explanation = Explanation("f", ("gone",), (CONSTANT,), True, "r")
    cases = [([row("killed")], [], OK), ([row("survived")], [], REFUSED), ([row("killed")], [explanation], REFUSED)]
    for rows, explanations, status in cases:
        result = Result("std", 1, rows, 1.0, explanations, [])
        monkeypatch.setattr(mutate, "run", lambda *_, result=result: result)
        for as_json in (False, True):
            assert mutate.report(["std"], Options(0, 1, 1, 20), as_json) == status
    assert "gone" in capsys.readouterr().out
    with pytest.raises(UsageError, match="expected std or handlers, found boot"):
        mutate.report(["boot"], Options(0, 1, 1, 20), False)


@pytest.mark.parametrize(
    ("function", "source", "tests"),
    [
        ("dsl.std.print.", "dsl/std/print.py", ("tests/std/test_print.py",)),
        ("dsl.std.screen.", "dsl/std/screen.py", ("tests/std/test_screen.py",)),
        pytest.param("vmm.devices.pic.", "vmm/devices/pic.py", PIC_SCRIPTS, marks=pytest.mark.slow),
    ],
)
def test_a_fixed_sample(function: str, source: str, tests: tuple[str, ...]) -> None:
    """Of two routines of the library that programs share, and a device of the monitor's: the tests kill most of the mutants."""
    result = run(function, Subject((function,), (source,), tests), Options(40, 1, 1, 20))
    assert result.score() >= MOST, "\n".join(mutate.survivors(result))

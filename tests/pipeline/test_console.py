"""Lines of several boxes on one serial line come apart again, in whatever pieces they arrive."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import console
from pipeline.run import EVIDENCE

pytestmark = pytest.mark.t0
WIRE = (
    b"terrane| monitor 1\r\ndebian| debian# \r\nwitness| ready\r\ndebian+ ls\r\nnoise\r\n"
    b"witness| begin-evidence\r\nwitness| 00112233\r\ndebian| x\r\nwitness+ 4455\r\nwitness| end-evidence " + b"ab" * 32
)


@given(st.lists(st.integers(0, len(WIRE)), max_size=8))
def test_pieces_do_not_matter(cuts: list[int]) -> None:
    """However the bytes are cut, each box said the same."""
    transcript = console.Transcript()
    places = [0, *sorted(cuts), len(WIRE)]
    for start, end in itertools.pairwise(places):
        transcript.feed(WIRE[start:end])
    assert transcript.said("debian") == "debian# ls\nx"
    assert transcript.said("witness").startswith("ready\nbegin-evidence\n001122334455\nend-evidence abab")
    found = EVIDENCE.search(transcript.said("witness"))
    assert found is not None
    assert found[1] == "001122334455"
    assert transcript.said("nobody") == ""


def test_a_prompt_is_seen_before_its_line_ends() -> None:
    """The last line counts though it has no end; half of an end marker does not."""
    transcript = console.Transcript()
    transcript.feed(b"debian| # ")
    assert transcript.said("debian") == "# "
    transcript.feed(b"\r\nwitness| begin-evidence\r\nwitness| 00\r\nwitness| end-evidence abab")
    assert EVIDENCE.search(transcript.said("witness")) is None


def test_a_refusal_is_seen_once_it_is_whole() -> None:
    """Only from the monitor or loader: a box that prints the same words is not believed."""
    transcript = console.Transcript()
    transcript.feed(b"evil| refused: nothing\r\nterrane| refused: header: sig")
    assert transcript.refusal() is None
    transcript.feed(b"nature: expected A, found B\r\n")
    assert transcript.refusal() == "refused: header: signature: expected A, found B"


def test_focus_is_the_attention_key_and_a_digit() -> None:
    """Hexadecimal, from 0."""
    assert console.focus(0) == b"\x010"
    assert console.focus(11) == b"\x01b"


def test_a_machine_that_stopped_gives_its_last_words() -> None:
    """Without a refusal, `stopped` alone ends the wait."""
    transcript = console.Transcript()
    transcript.feed(b"terrane| loader: checking\r\nterrane| failed check at x.py:3\r\nterrane| stopped")
    assert transcript.refusal() is None
    transcript.feed(b"\r\n")
    assert transcript.refusal() == "the machine stopped after: loader: checking / failed check at x.py:3"

"""The page of `verify --html`, as a browser shows it: the layers, who signed whom, and the one that broke."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline import cli, evidence, page
from pipeline.arguments import parser
from pipeline.errors import PipelineError
from pipeline.evidence import Item, Kind
from pipeline.verify import verify_evidence
from pipeline.verify_certificates import VerificationError
from tests.pipeline.forge import NONCE
from tests.pipeline.forge_tpm import TpmMachine

pytestmark = pytest.mark.t0
BROWSER = shutil.which("chromium")


def shown(path: Path) -> str:
    """The page's elements after a browser has read it. Fails where it asks for anything beyond the file."""
    command = [
        str(BROWSER),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={path.parent / 'profile'}",
    ]
    done = subprocess.run(
        [*command, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


def cards(text: str) -> list[tuple[str, str, str]]:
    """Kind, state and layer of each card, in order."""
    return re.findall(r'<div class="card(.*?)"><span class="state">(.*?)</span><b>(.*?)</b>', text)


def failure(machine: TpmMachine, items: list[Item], folder: Path) -> VerificationError:
    """What the verifier says of these items."""
    with pytest.raises(VerificationError) as error:
        verify_evidence(evidence.pack(items), machine.reference(folder), NONCE)
    return error.value


def test_a_verified_chain_shows_every_layer(tmp_path: Path) -> None:
    """All three chains, each card verified, the quoted PCRs, and nothing from outside."""
    machine = TpmMachine()
    text = page.verdict_page(verify_evidence(machine.bundle(), machine.reference(tmp_path), NONCE))
    assert "http" not in text.replace("http-equiv", "")
    assert {state for _, state, _ in cards(text)} == {"verified"}
    layers = [layer for _, _, layer in cards(text)]
    assert layers[4:8] == ["device", "monitor", "box witness", "endorsed key"]
    assert layers[8:] == ["provisioning CA", "device certificate", "attestation key", "quote", "event log"]
    assert text.count("firmware: shown, not compared") == 13
    assert "the monitor is a debug build" in text


def test_a_broken_chain_is_red_where_it_broke(tmp_path: Path) -> None:
    """What was verified before stays, the broken layer names field, expected and got, what follows was not reached."""
    machine = TpmMachine()
    items = [
        Item(item.kind, item.data[:-1] + b"?") if item.kind is Kind.QUOTE_SIGNATURE else item
        for item in machine.items()
    ]
    text = page.failure_page(failure(machine, items, tmp_path))
    states = {layer: (kind.strip(), state) for kind, state, layer in cards(text)}
    assert states["monitor"] == ("", "verified")
    assert states["quote"] == ("bad", "broken")
    assert states["what follows"] == ("unreached", "not reached")
    assert "NOT VERIFIED" in text


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "a & b", '"quoted"'])
def test_what_a_machine_says_is_text(text: str) -> None:
    """Evidence is hostile: nothing of it becomes markup."""
    made = page.failure_page(VerificationError("box <i>", text, text, text))
    assert "<script" not in made
    assert "<i>" not in made
    assert "box &lt;i&gt;" in made
    assert "<script" not in page.failure_page(PipelineError(text))


@pytest.mark.skipif(BROWSER is None, reason="chromium (Debian package chromium) is missing")
def test_a_browser_shows_it(tmp_path: Path) -> None:
    """The verb writes both pages; what a browser makes of them has the same cards as the file, so no tag is left open."""
    machine = TpmMachine()
    machine.reference(tmp_path)
    (tmp_path / "good.bin").write_bytes(machine.bundle())
    (tmp_path / "bad.bin").write_bytes(evidence.pack(machine.items()[:-1]))
    for name, word in (("good", "VERIFIED"), ("bad", "NOT VERIFIED")):
        html = tmp_path / f"{name}.html"
        words = [
            "verify",
            str(tmp_path / f"{name}.bin"),
            "--expect",
            str(tmp_path / "terrane.json"),
            "--nonce",
            NONCE.hex(),
        ]
        options = parser().parse_args([*words, "--html", str(html)])
        if name == "good":
            assert cli.verify(options) == 0
        else:
            with pytest.raises(VerificationError):
                cli.verify(options)
        dom = shown(html)
        assert cards(dom) == cards(html.read_text())
        assert f">{word}</h1>" in dom

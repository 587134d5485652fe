"""`verify --html`: the chain as one self-contained page: layers, keys, who signed whom, what each was compared with; red where it broke."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from pipeline import chain, report
from pipeline.errors import PipelineError
from pipeline.verify import LEAF_LAYER, Verdict
from pipeline.verify_certificates import Node, VerificationError
from pipeline.verify_tpm import TPM_LAYERS

STYLE = """
:root { color-scheme: light dark; --good: #2a7a46; --bad: #c22f2f; --dim: #8a8f98; --line: #8885; --card: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin: 0; } h1.good { color: var(--good); } h1.bad { color: var(--bad); }
h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
.warning { border-left: 4px solid #c98a00; padding: .2rem .8rem; margin: .5rem 0; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 0 1.5rem; align-items: start; }
.card { border: 1px solid var(--line); border-left: 6px solid var(--good); border-radius: 6px; background: var(--card);
        padding: .5rem .8rem; }
.card.bad { border-color: var(--bad); } .card.unreached { border-left-color: var(--dim); color: var(--dim); }
.card b { font-size: 1.02rem; } .card .state { float: right; font-weight: 600; color: var(--good); }
.card.bad .state { color: var(--bad); } .card.unreached .state { color: var(--dim); }
.arrow { text-align: center; color: var(--dim); line-height: 1.3; font-size: .85rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 .8rem; margin: .2rem 0 0; }
dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; } code { font: .84rem/1.4 ui-monospace, monospace; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: .15rem .6rem; border-bottom: 1px solid var(--line); }
td code { overflow-wrap: anywhere; }
"""
RELEASE, RUN_TIME, TPM = (
    "Release chain: who vouches for these bytes",
    "Run-time chain: what runs",
    "TPM: on which machine, in which boot",
)
LAYER_OF_ERROR = {"endorsement": LEAF_LAYER}


@dataclass(frozen=True)
class Broken:
    """Where a verification ended."""

    layer: str
    field: str
    expected: str
    got: str


def verdict_page(verdict: Verdict) -> str:
    """The page of evidence that was verified."""
    good = report.is_verified(verdict)
    facts = [("box", verdict.box), ("nonce", verdict.nonce), ("report", verdict.report)]
    facts += [("mode", chain.MODES[verdict.mode]), ("posture", chain.posture_text(verdict.posture))]
    if verdict.tpm is not None:
        found = verdict.tpm
        facts += [
            ("firmware", found.firmware.upper()),
            ("boot", f"reset {found.reset_count}, restart {found.restart_count}"),
        ]
        facts += [("TPM clock", f"{found.clock_ms / 1000:.1f} s"), ("endorsement certificate", found.endorsement)]
    body = [heading("VERIFIED" if good else "NOT AUTHENTIC", good)]
    body += [f'<p class="warning">{escape(warning)}</p>' for warning in verdict.warnings]
    body.append(definitions([(name, value) for name, value in facts if value]))
    body.append(columns(verdict.nodes, None))
    body.append(pcr_table(verdict))
    return page("Terrane: verified" if good else "Terrane: not authentic", body)


def failure_page(error: PipelineError, notes: list[str] | None = None) -> str:
    """The page of evidence that was refused: what was verified before, the layer that broke, what was not reached; and why, in `notes`."""
    body = [heading("NOT VERIFIED", False)]
    if not isinstance(error, VerificationError):
        return page("Terrane: not verified", [*body, f"<p>{escape(str(error))}</p>"])
    broken = Broken(LAYER_OF_ERROR.get(error.layer, error.layer), error.field, error.expected, error.got)
    body.append(
        definitions([("layer", error.layer), ("field", error.field), ("expected", error.expected), ("got", error.got)])
    )
    body += [f'<p class="warning">{escape(note.strip())}</p>' for note in notes or ()]
    body.append(columns(error.nodes, broken))
    return page("Terrane: not verified", body)


def page(title: str, body: list[str]) -> str:
    """A whole document; it refers to nothing outside itself."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    return (
        f'<!doctype html><html lang="en"><head>{head}<style>{STYLE}</style></head><body>{"".join(body)}</body></html>\n'
    )


def heading(text: str, good: bool) -> str:
    """The word that matters."""
    return f'<h1 class="{"good" if good else "bad"}">{escape(text)}</h1>'


def definitions(rows: list[tuple[str, str]]) -> str:
    """Names and values."""
    return (
        "<dl>"
        + "".join(f"<dt>{escape(name)}</dt><dd><code>{escape(value)}</code></dd>" for name, value in rows)
        + "</dl>"
    )


def group_of(layer: str) -> str:
    """Which of the three chains a layer belongs to."""
    if layer.startswith("release:"):
        return RELEASE
    return TPM if layer in TPM_LAYERS else RUN_TIME


def columns(nodes: tuple[Node, ...], broken: Broken | None) -> str:
    """The chains side by side."""
    groups = {group: [node for node in nodes if group_of(node.layer) == group] for group in (RELEASE, RUN_TIME, TPM)}
    out = []
    for title, found in groups.items():
        here = (
            broken
            if broken is not None and broken.layer not in ("evidence", "nonce") and group_of(broken.layer) == title
            else None
        )
        if found or here:
            out.append(f"<section><h2>{escape(title)}</h2>{cards(found, here)}</section>")
    return f'<div class="columns">{"".join(out)}</div>'


def cards(nodes: list[Node], broken: Broken | None) -> str:
    """One chain from its root down, with an arrow from each signer."""
    out: list[str] = []
    for node in nodes:
        if broken is not None and node.layer == broken.layer:
            break
        arrow = f'<div class="arrow">↓ signed by {escape(node.signed_by)}</div>' if out else ""
        rows = [("hash", node.sha256), ("key", node.public_key), ("mode", node.mode), ("compared with", node.compared)]
        out.append(
            f'{arrow}<div class="card">{title(node.layer, "verified")}{definitions([row for row in rows if row[1]])}</div>'
        )
    if broken is not None:
        rows = [("field", broken.field), ("expected", broken.expected), ("got", broken.got)]
        arrow = '<div class="arrow">↓</div>' if out else ""
        out.append(f'{arrow}<div class="card bad">{title(broken.layer, "broken")}{definitions(rows)}</div>')
        out.append(
            f'<div class="arrow">↓</div><div class="card unreached">{title("what follows", "not reached")}</div>'
        )
    return "".join(out)


def title(layer: str, state: str) -> str:
    """A card's head."""
    return f'<span class="state">{escape(state)}</span><b>{escape(layer)}</b>'


def pcr_table(verdict: Verdict) -> str:
    """The quoted PCRs."""
    if verdict.tpm is None:
        return ""
    rows = "".join(
        f"<tr><td>{pcr.index}</td><td><code>{pcr.value}</code></td><td>{escape(pcr.compared or 'firmware: shown, not compared')}</td></tr>"
        for pcr in verdict.tpm.pcrs
    )
    return f"<h2>Quoted PCRs, SHA-256 bank</h2><table><tr><th>PCR</th><th>value</th><th>compared with</th></tr>{rows}</table>"

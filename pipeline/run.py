"""Boot an image where boxes run, ask its closed box for evidence with a fresh nonce, and verify what comes back."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import selectors
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline import console, disk, evidence, image, machines, paths, report
from pipeline.bochs import Machine
from pipeline.emulator import Emulator, EmulatorError
from pipeline.errors import OK, REFUSED, PipelineError, UsageError
from pipeline.progress import say
from pipeline.qemu import QemuMachine
from pipeline.reference import LayerReference, Reference
from pipeline.verify import NONCE_SIZE, Root, Verdict, verify_evidence

LEAVE = b"\x1d"  # Ctrl-]
EVIDENCE = re.compile(r"begin-evidence\n([0-9a-f\n]*)\nend-evidence ([0-9a-f]{64})")
QUIET_SECONDS = 3.0  # input from a pipe has ended: leave when nothing more came for this long
EVIDENCE_SECONDS = 60.0
BEAT_SECONDS = 5.0
SETTLE_SECONDS = 3.0  # a line that does not go on for this long is a prompt


class Refused(PipelineError):
    """The machine itself refused to go on, and said why."""


@dataclass(frozen=True)
class Session:
    """What to run and for how long. `attach`: name of a box to stay with."""

    machine: Machine | QemuMachine
    reference: Reference
    seconds: float
    attach: str | None = None


class Terminal:
    """Serial output as it comes, for a person; and the transcript that the program reads."""

    def __init__(self, show: bool) -> None:
        """`show`: write to standard output, otherwise to standard error (standard output then belongs to JSON)."""
        self.transcript = console.Transcript()
        self.inside_line = False
        self.last_piece = time.monotonic()
        self.waiting: list[str] = []  # of our own lines: for the end of the one under the cursor
        self.stream = sys.stdout.buffer if show else sys.stderr.buffer

    def take(self, data: bytes) -> None:
        """Show a piece, our own waiting lines after its last line end, and remember it."""
        end = data.rfind(b"\n") + 1
        self.show(data[:end])
        if end and self.waiting:
            self.inside_line = False
            self.say_waiting()
        self.show(data[end:])
        self.inside_line = not data.endswith(b"\n")
        self.last_piece = time.monotonic()
        self.transcript.feed(data)

    def show(self, data: bytes) -> None:
        """Write bytes through."""
        self.stream.write(data)
        self.stream.flush()

    def note(self, text: str) -> None:
        """Say something of our own: now between two lines of the machine's, otherwise when its line has ended (see `settle`)."""
        self.waiting.append(text)
        if not self.inside_line:
            self.say_waiting()

    def settle(self, seconds: float = 0.0) -> None:
        """Say what waits, on a line of its own, if the line under the cursor did not go on for this long (a prompt)."""
        is_prompt = seconds == 0 or self.transcript.has_begun_line()  # the monitor may rest in the middle of a name
        if self.waiting and is_prompt and time.monotonic() - self.last_piece >= seconds:
            self.say_waiting()

    def say_waiting(self) -> None:
        """Say it now, after a line end of our own where one is needed."""
        if self.inside_line:
            self.show(b"\r\n")
            self.inside_line = False
        while self.waiting:
            say(self.waiting.pop(0))


def run(session: Session, as_json: bool) -> int:
    """Boot, verify, report; the exit status. Raises PipelineError where something did not go well."""
    closed = [box for box in session.reference.boxes if box.closed]
    attach_index(session)
    terminal = Terminal(show=not as_json)
    started = time.monotonic()
    deadline = started + session.seconds
    say(f"Booting {session.machine.image.name} in {session.machine.title}")
    verdict = None
    with session.machine.emulator(terminal.take) as emulator:
        if closed:
            verdict = attest(session, emulator, terminal, closed[0], deadline)
        if verdict is not None:
            terminal.note(
                f"The evidence of {closed[0].name} is verified, {time.monotonic() - started:.1f} s after power-on"
            )
        for box in session.reference.boxes:
            wait_until_up(emulator, terminal, box, deadline)
        terminal.note(f"All boxes are up, {time.monotonic() - started:.1f} s after power-on")
        terminal.settle()
        if not closed:
            terminal.note("not verified: the image has no closed box")
            terminal.settle()
        print(
            "" if verdict is None else f"\n{report.verdict_json(verdict) if as_json else report.tree(verdict)}",
            flush=True,
        )
        if session.attach is not None:
            stay(session, emulator, terminal, deadline)
    return OK if verdict is not None and report.is_verified(verdict) else REFUSED


def attach_index(session: Session) -> int:
    """The place of the box to attach to. Raises UsageError naming the boxes there are."""
    names = [box.name for box in session.reference.boxes]
    if session.attach is None:
        return 0
    if session.attach not in names:
        raise UsageError(f"--attach: expected one of {', '.join(names)}, found {session.attach!r}")
    return names.index(session.attach)


def watch(terminal: Terminal, found: Callable[[], bool], what: str) -> Callable[[], bool]:
    """A condition for Emulator.wait_for that also fails on a refusal and says every few seconds that it still waits."""
    last = [time.monotonic()]

    def condition() -> bool:
        refusal = terminal.transcript.refusal()
        if refusal is not None:
            raise Refused(refusal)
        if time.monotonic() - last[0] > BEAT_SECONDS:
            last[0] = time.monotonic()
            terminal.note(f"waiting for {what}")
        terminal.settle(SETTLE_SECONDS)
        return found()

    return condition


def attest(
    session: Session, emulator: Emulator, terminal: Terminal, box: LayerReference, deadline: float
) -> Verdict | None:
    """Fetch evidence from a closed box for a fresh nonce and verify it; None where the machine's TPM gave it no secret of its own."""
    index = session.reference.boxes.index(box)
    links = image.read_release_chain(disk.read_terrane_partition(emulator.disk))
    if not box.ready:
        raise UsageError(
            f"box {box.name}: expected a text `ready` in its box.toml, which says when it takes commands, found none"
        )
    wait_until_up(emulator, terminal, box, deadline)
    nonce = secrets.token_bytes(NONCE_SIZE)
    terminal.note(f"Asking {box.name} for evidence with the nonce {nonce.hex()}")
    emulator.send(console.focus(index) + b"attest " + nonce.hex().encode() + b"\n")
    bundle = receive_evidence(emulator, terminal, box.name, min(EVIDENCE_SECONDS, deadline - time.monotonic()))
    complete = completed(bundle, [*links[:3], *links[3 + index : 4 + index]], terminal)
    (paths.OUT / "evidence.nonce").write_text(nonce.hex() + "\n")
    root = root_of(session.machine, complete, terminal)
    return root and verify_evidence(complete, session.reference, nonce, box.name, root=root)


def completed(bundle: bytes, links: list[bytes], terminal: Terminal) -> bytes:
    """A bundle with what the machine does not have itself; kept in out/evidence.bin."""
    bundle = with_release_chain(bundle, links)
    machine = machines.machine_of(bundle, paths.KEYS)
    if machine is not None:
        terminal.note(f"This is the machine {machine.name} of keys/machines")
        bundle = machines.with_machine(bundle, machine)
    paths.OUT.mkdir(parents=True, exist_ok=True)
    (paths.OUT / "evidence.bin").write_bytes(bundle)
    return bundle


def root_of(machine: Machine | QemuMachine, bundle: bytes, terminal: Terminal) -> Root | None:
    """The root that this machine can have; None where it has a TPM that gave it no secret of its own."""
    if machines.machine_of(bundle, paths.KEYS) is not None:
        return Root.TPM
    if isinstance(machine, Machine) or not machine.tpm:
        return Root.DEVELOPMENT
    terminal.note(
        "not verified: the TPM gave the loader no secret (it says why above);"
        " `build.py provision` prepares a TPM and approves a boot"
    )
    return None


def receive_evidence(emulator: Emulator, terminal: Terminal, name: str, seconds: float) -> bytes:
    """The bundle that a box prints. Raises EvidenceError where its own checksum does not fit."""
    what = f"evidence from the box {name}"
    emulator.wait_for(
        watch(terminal, lambda: EVIDENCE.search(terminal.transcript.said(name)) is not None, what), what, seconds
    )
    return checked_bundle(terminal.transcript.said(name))


def checked_bundle(said: str) -> bytes:
    """The bundle in what was said. Raises EvidenceError where its own checksum does not fit."""
    found = EVIDENCE.search(said)
    assert found is not None
    bundle = bytes.fromhex(found[1].replace("\n", ""))
    digest = hashlib.sha256(bundle).hexdigest()
    if digest != found[2]:
        raise evidence.EvidenceError(
            f"evidence: expected SHA-256 {found[2]} (the box's own line), found {digest}: garbled on the way"
        )
    return bundle


def wait_until_up(emulator: Emulator, terminal: Terminal, box: LayerReference, deadline: float) -> None:
    """Wait for the text that says that a box is up, where it has one."""
    if box.ready:
        what = f"{box.ready!r} from the box {box.name}"
        emulator.wait_for(
            watch(terminal, lambda: box.ready in terminal.transcript.said(box.name), what),
            what,
            deadline - time.monotonic(),
        )


def with_release_chain(bundle: bytes, links: list[bytes]) -> bytes:
    """The bundle with the release chain of the image added: root, boot, VMM, and the box's own link."""
    items = [item for item in evidence.parse(bundle) if item.kind is not evidence.Kind.RELEASE]
    return evidence.pack([*items, *(evidence.Item(evidence.Kind.RELEASE, link) for link in links)])


def stay(session: Session, emulator: Emulator, terminal: Terminal, deadline: float) -> None:
    """Keep the person's terminal on a box until Ctrl-], or, for input from a pipe, until it has ended and nothing more comes."""
    assert session.attach is not None
    what = f"a line of the box {session.attach}"
    emulator.wait_for(
        watch(terminal, lambda: bool(terminal.transcript.said(str(session.attach))), what),
        what,
        deadline - time.monotonic(),
    )
    terminal.note(f"Attached to {session.attach}; Ctrl-] leaves")
    emulator.send(console.focus(attach_index(session)))
    with raw_terminal():
        forward(emulator)


def forward(emulator: Emulator) -> None:
    """Carry standard input to the serial line while output goes on."""
    descriptor = sys.stdin.fileno()
    ended: float | None = None
    with selectors.DefaultSelector() as selector:
        selector.register(emulator.receiver, selectors.EVENT_READ, "machine")
        with contextlib.suppress(PermissionError):  # a plain file cannot be waited for: it is read below
            selector.register(descriptor, selectors.EVENT_READ, "person")
        if len(selector.get_map()) == 1:
            emulator.send(os.read(descriptor, 1 << 16))
            ended = time.monotonic()
        while ended is None or time.monotonic() - ended < QUIET_SECONDS:
            for key, _ in selector.select(0.5):
                if key.data == "machine":
                    try:
                        emulator.read(0)
                    except EmulatorError as error:
                        say(str(error))
                        return
                    ended = ended and time.monotonic()
                    continue
                typed = os.read(descriptor, 1024)
                before, leave, _ = typed.partition(LEAVE)
                emulator.send(before)
                if leave:
                    return
                if not typed:
                    selector.unregister(descriptor)
                    ended = time.monotonic()


@contextlib.contextmanager
def raw_terminal() -> Iterator[None]:
    """Raw mode on standard input while inside, where it is a terminal."""
    if not sys.stdin.isatty():
        yield
        return
    descriptor = sys.stdin.fileno()
    saved = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, saved)
        print()

"""The verbs, once the machine is set up."""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import OK, PipelineError, UsageError
from pipeline.progress import say

if TYPE_CHECKING:
    from pipeline import assemble

MEBIBYTE = 1 << 20


def perform(options: argparse.Namespace) -> int:
    """Do what the command line asks; the exit status. Modules load here, so that `verify` needs no compiler."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that no emulator is left running
    verbs = {
        "keys": show_keys,
        "build": build,
        "run": run,
        "burn": burn,
        "provision": provision,
        "verify": verify,
        "test": test,
        "check": check,
        "bench": bench,
        "boot": boot,
        "explain": explain_address,
        "size": size,
        "mutate": mutate,
    }
    try:
        return verbs[options.verb](options)
    except (SyntaxError, TypeError) as error:  # what this very program imports may be a program's source, too
        from dsl.lang.failure import DeclarationError

        if not isinstance(error, SyntaxError | DeclarationError):
            raise
        from pipeline.program_file import diagnose

        raise PipelineError(f"importing the sources:\n{diagnose(error, '', '').render()}") from None


def show_keys(options: argparse.Namespace) -> int:
    """Make what is missing in keys/ and show the public halves."""
    from pipeline import keys, paths, secure_boot

    loaded = keys.load()
    signers = secure_boot.make() if options.secure_boot else secure_boot.load()
    named = {name: signer for name, _, signer, _ in signers.chain()} if signers else {}
    secure = {name: hashlib.sha256(signer.der()).hexdigest() for name, signer in named.items()}
    public = {name: keys.public_bytes(getattr(loaded, name)).hex() for name in keys.SIGNING_KEYS}
    if options.json:
        print(
            json.dumps(
                {"folder": str(paths.KEYS), "created": list(loaded.created), "public": public, "secure_boot": secure},
                indent=1,
            )
        )
        return OK
    for name, value in public.items():
        print(f"{name:8} {value}{'  (made just now)' if name in loaded.created else ''}")
    created = "  (made just now)" if keys.DEVELOPMENT_SECRET in loaded.created else ""
    print(f"{keys.DEVELOPMENT_SECRET}: kept secret{created}")
    for name, fingerprint in secure.items():
        print(f"{name:8} {fingerprint}  (Secure Boot: SHA-256 of the certificate)")
    return OK


def build(options: argparse.Namespace) -> int:
    """Build the image and its reference file."""
    from pipeline import paths

    started = time.monotonic()
    built = write_image(options)
    seconds = time.monotonic() - started
    if options.json:
        values = {
            "image": str(built_image(options)),
            "sizes": built.sizes,
            "seconds": round(seconds, 2),
            "reference": built.reference,
        }
        print(json.dumps(values, indent=1))
        return OK
    for name, size in built.sizes.items():
        print(f"{name:28} {size:>12,} bytes")
    for box in built.reference["boxes"]:
        print(f"{box['name']:28} {'closed' if box['closed'] else 'open':6} {box['sha256']}")
    image = built_image(options).relative_to(paths.ROOT)
    print(f"built {image} and {image.with_suffix('.json')} in {seconds:.1f} s")
    return OK


def write_image(options: argparse.Namespace) -> assemble.Built:
    """Build and write what the options choose."""
    from dsl.compiler.machine import POOL
    from dsl.compiler.report import without_collector
    from pipeline import assemble, paths
    from pipeline import provision as owner

    if options.selftest and options.boxes:
        raise UsageError("--selftest: the self-test has no boxes; expected no --boxes")
    if options.release and not (paths.KEYS / owner.PROVISIONING).exists():
        raise UsageError(
            f"--release: expected the owner's keys in {paths.KEYS / owner.PROVISIONING}, which `build.py provision` makes,"
            " found none: no TPM holds a secret for this image, and nobody could verify a boot of it"
        )
    if options.pool is not None and not 4 <= options.pool <= len(POOL):
        raise UsageError(f"--pool: expected 4 to {len(POOL)} registers, found {options.pool}")
    terms = assemble.Terms(options.security_version, options.release)
    folders = () if options.selftest else assemble.box_folders(options.boxes)
    choices = assemble.Choices(folders, options.memory * MEBIBYTE, options.pool, options.selftest, terms)
    with without_collector():
        built = assemble.build(choices)
        assemble.write(built, name="selftest" if options.selftest else "terrane")
        gc.freeze()  # what the compiler leaves behind is large, and looking through it again takes half a second
    return built


def built_image(options: argparse.Namespace) -> Path:
    """Where `write_image` writes."""
    from pipeline import paths, selftest

    return selftest.IMAGE if options.selftest else paths.IMAGE


def refuse_choices(options: argparse.Namespace) -> None:
    """Refuse what says how to build where an image is given. Raises UsageError."""
    given = [options.boxes, options.pool, options.selftest, options.release, options.security_version != 1]
    if any(given):
        raise UsageError(
            "--image: takes an image as it is; --boxes, --pool, --selftest, --release and --security-version have no meaning with it"
        )


def burn(options: argparse.Namespace) -> int:
    """Build unless an image is given; write it to a disk."""
    from pipeline import burn as burner

    if options.image is not None:
        refuse_choices(options)
    elif options.device is not None:
        write_image(options)
    image = Path(options.image) if options.image is not None else built_image(options)
    return burner.burn(options.device, image, frozenset(options.allow), options.yes)


def provision(options: argparse.Namespace) -> int:
    """Prepare a TPM, approve a boot, or raise the floor."""
    from pipeline import provision_verb

    return provision_verb.perform(options)


def run(options: argparse.Namespace) -> int:
    """Build unless an image is given; boot; verify."""
    from pipeline import run_verb

    return run_verb.perform(options)


def verify(options: argparse.Namespace) -> int:
    """Verify an evidence file."""
    from pipeline import evidence, history, page, reference, report
    from pipeline.machines import with_machine
    from pipeline.verify import Root, verify_evidence, verify_monitor
    from pipeline.verify_certificates import VerificationError

    nonce = nonce_of(options)
    try:
        expected = reference.load(Path(options.expect))
        bundle = evidence.load(Path(options.evidence))
        if options.machine:
            bundle = with_machine(bundle, Path(options.machine))
        root = Root(options.root) if options.root else None
        if options.monitor:
            verdict = verify_monitor(bundle, expected, options.accept_unprovisioned, root)
        else:
            verdict = verify_evidence(bundle, expected, nonce, options.box, options.accept_unprovisioned, root)
    except VerificationError as error:
        report_failure(options, error)
        notes = history.differences(bundle, expected.image_sha256)
        for note in notes:
            say(note)
        if options.html:
            Path(options.html).write_text(page.failure_page(error, notes), encoding="utf-8")
        raise
    except PipelineError as error:
        report_failure(options, error)
        raise
    if options.html:
        Path(options.html).write_text(page.verdict_page(verdict), encoding="utf-8")
    if options.certificates:
        report.write_certificates(verdict, Path(options.certificates))
    print(report.verdict_json(verdict) if options.json else report.tree(verdict))
    return OK


def nonce_of(options: argparse.Namespace) -> bytes:
    """The nonce of `verify`; empty for a monitor's bundle, which has none. Raises UsageError."""
    if options.monitor:
        if options.nonce or options.box:
            raise UsageError(
                "--monitor: a monitor's bundle has neither nonce nor box; expected neither --nonce nor --box"
            )
        return b""
    if options.nonce is None or not re.fullmatch("[0-9A-Fa-f]{64}", options.nonce):
        raise UsageError(f"--nonce: expected 64 hex digits, found {options.nonce or 'none'!r}")
    return bytes.fromhex(options.nonce)


def report_failure(options: argparse.Namespace, error: PipelineError) -> None:
    """For --json: the failure on standard output; the message on standard error comes in any case."""
    from pipeline import report

    if options.json:
        print(report.failure_json(error))
    elif error.status != UsageError.status:
        say("NOT VERIFIED")


def test(options: argparse.Namespace) -> int:
    """Run the tests."""
    from pipeline import checks

    if options.long:
        return checks.run_long(options.count, options.seed)
    return checks.run_tests(options.quick, options.rest)


def check(_: argparse.Namespace) -> int:
    """Run format, lint, types and layers."""
    from pipeline import checks

    return checks.run_checks()


def bench(options: argparse.Namespace) -> int:
    """Measure."""
    from pipeline import bench as benches

    return benches.report(options.name, options.json)


def explain_address(options: argparse.Namespace) -> int:
    """Say what lies at an address of loader or monitor."""
    from pipeline import explain

    return explain.report(options.address, options.json)


def size(options: argparse.Namespace) -> int:
    """Show where the bytes are."""
    from pipeline import size as sizes

    return sizes.report(options.against, options.json)


def mutate(options: argparse.Namespace) -> int:
    """Break the emitted code and see whether the tests notice."""
    from pipeline import mutate as mutation

    processes = options.jobs or os.cpu_count() or 1
    count = 0 if options.all else options.sample
    chosen = mutation.Options(count, options.seed, processes, options.budget, within=options.within)
    return mutation.report(options.subject, chosen, options.json, Path(options.again) if options.again else None)


def boot(options: argparse.Namespace) -> int:
    """Run a program of one's own on the bare machine."""
    from pipeline import boot_program

    return boot_program.boot(options.program, options.memory, options.cpu, options.timeout)

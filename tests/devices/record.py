"""Record what a reference PC answers to the port scripts: `python -m tests.devices.record`, which needs qemu-system-x86_64.

The reference runs no firmware: its ROM is a small real-mode interpreter made here, which obeys the steps of one script and sends four
bytes per step to the debug port E9h. Time is counted in instructions (one a nanosecond), so that a recording is repeatable.
"""

from __future__ import annotations

import json
import shlex
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tests.devices.scripts import SCRIPTS, Step

TRACES: Final = Path(__file__).parent / "traces"
ROM_SIZE: Final = 0x10000
HANDLERS: Final = 0x1000  # 256 interrupt handlers of 8 bytes
SCRIPT: Final = 0x2000
RESET_VECTOR: Final = 0xFFF0
OPERATIONS: Final = {"out": 1, "in": 2, "out4": 3, "in4": 4, "inta": 5, "wait": 6}
NO_INTERRUPT: Final = 0xFFFF_FFFF
LOOPS_PER_US: Final = 500  # two instructions each
START: Final = "2026-03-01T15:04:05"  # the reference's clock; test_traces.py starts the model's there too
REFERENCE: Final = (
    "qemu-system-x86_64 -M pc,accel=tcg -cpu qemu64,-apic -m 16 -nodefaults -display none -vga none -no-reboot -serial null"
    " -bios {image} -icount shift=0,sleep=off -rtc base={start},clock=vm -chardev file,id=answers,path={answers}"
    " -device isa-debugcon,iobase=0xe9,chardev=answers -device isa-debug-exit,iobase=0xf4"
)

INTERPRETER: Final = """
    cli
    xor ax, ax
    mov ss, ax
    mov sp, 0x7000
    mov es, ax
    mov ax, 0xf000
    mov ds, ax
    xor di, di
    mov ax, 0x1000
vectors:
    mov es:[di], ax
    mov word ptr es:[di + 2], 0xf000
    add ax, 8
    add di, 4
    cmp di, 0x400
    jne vectors
    mov si, 0x2000
step:
    mov cl, [si]
    mov dx, [si + 2]
    mov eax, [si + 4]
    xor ebx, ebx
    cmp cl, 1
    je out_byte
    cmp cl, 2
    je in_byte
    cmp cl, 3
    je out_double
    cmp cl, 4
    je in_double
    cmp cl, 5
    je acknowledge
    cmp cl, 6
    je wait_loop
    mov dx, 0xf4
    out dx, al
stopped:
    hlt
    jmp stopped
out_byte:
    out dx, al
    jmp answer
in_byte:
    in al, dx
    mov bl, al
    jmp answer
out_double:
    out dx, eax
    jmp answer
in_double:
    in eax, dx
    mov ebx, eax
    jmp answer
acknowledge:
    mov ebx, 0xffffffff
    sti
    nop
    nop
    nop
    cli
    jmp answer
wait_loop:
    dec eax
    jnz wait_loop
answer:
    mov eax, ebx
    mov cx, 4
    mov dx, 0xe9
send:
    out dx, al
    shr eax, 8
    loop send
    add si, 8
    jmp step
interrupted:
    mov bp, sp
    and word ptr [bp + 4], 0xfdff
    movzx ebx, bl
    iret
"""


def assemble(source: str) -> bytes:
    """Assemble 16-bit code for address 0."""
    import keystone

    encoding, _ = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_16).asm(source, 0)
    return bytes(encoding)


def operand(step: Step) -> int:
    """Return the value that a step carries in the ROM."""
    if step[0] == "wait":
        return int(step[1]) * LOOPS_PER_US
    return int(step[2]) if step[0].startswith("out") else 0


def rom(steps: list[Step]) -> bytes:
    """Return the ROM that runs the steps."""
    code = assemble(INTERPRETER)
    common = len(assemble(INTERPRETER.partition("interrupted:")[0]))
    image = bytearray(b"\xf4" * ROM_SIZE)
    image[: len(code)] = code
    for vector in range(256):
        place = HANDLERS + vector * 8
        # mov bl, vector; jmp interrupted
        image[place : place + 5] = struct.pack("<BBBh", 0xB3, vector, 0xE9, common - (place + 5))
    for index, step in enumerate(steps):
        port = 0 if step[0] in ("wait", "inta") else step[1]
        struct.pack_into("<BBHI", image, SCRIPT + index * 8, OPERATIONS[step[0]], 0, port, operand(step))
    struct.pack_into("<BBHI", image, SCRIPT + len(steps) * 8, 0, 0, 0, 0)
    image[RESET_VECTOR : RESET_VECTOR + 5] = b"\xea\x00\x00\x00\xf0"  # jmp f000:0000
    return bytes(image)


def run(steps: list[Step]) -> list[int]:
    """Run the steps on the reference and return its answer to each (zero for those that ask nothing)."""
    with tempfile.TemporaryDirectory() as folder:
        image, answers = Path(folder, "rom.bin"), Path(folder, "answers")
        image.write_bytes(rom(steps))
        command = shlex.split(REFERENCE.format(image=image, start=START, answers=answers))
        subprocess.run(command, timeout=60, check=False, stdin=subprocess.DEVNULL)
        got = answers.read_bytes()
    if len(got) != 4 * len(steps):
        raise SystemExit(f"expected {4 * len(steps)} bytes of answers, found {len(got)}")
    return [value for (value,) in struct.iter_unpack("<I", got)]


def main() -> None:
    """Write traces/NAME.json for every script: one row a step, [step, answer or null]."""
    TRACES.mkdir(exist_ok=True)
    for name, steps in SCRIPTS.items():
        answers = run(steps)
        asks = ("in", "in4", "inta")
        pairs = zip(steps, answers, strict=True)
        rows = [json.dumps([list(step), answer if step[0] in asks else None]) for step, answer in pairs]
        (TRACES / f"{name}.json").write_text("[\n" + ",\n".join(rows) + "\n]\n")
        print(f"{name}: {len(steps)} steps")


if __name__ == "__main__":
    main()

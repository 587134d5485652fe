"""Whole machines in Bochs: boxes of a few instructions, what they see, how they die, and that the others go on."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from dsl.lang import dispatch
from tests.boot.images import disk_of, partition_of
from tests.boot.machine import BOCHS, Outcome, boot
from tests.vmm.images import Segment, TestBox, assemble, disk_with, parts_of
from vmm.descriptor import DEVICE_SERIAL, StartMode

pytestmark = [pytest.mark.t2, pytest.mark.skipif(BOCHS is None, reason="Bochs is not installed")]
END = "all boxes have stopped"
PRINT_AL = "mov dx, 0x3f8; out dx, al"
HLT_FOREVER = "cli; hlt"


def text_of(outcome: Outcome, box: str) -> str:
    """What one box printed, its lines joined."""
    found = ""
    for line in outcome.serial.replace("\r", "").splitlines():
        if line.startswith(f"{box}| "):
            found += f"\n{line[len(box) + 2 :]}"
        elif line.startswith(f"{box}+ "):
            found += line[len(box) + 2 :]
    return found.strip()


def reasons_of(outcome: Outcome) -> dict[str, str]:
    """Why each box stopped."""
    return dict(re.findall(r"terrane\| box ([a-z0-9-]+) stopped: ([a-z ]+) \(", outcome.serial))


def printing(message: str) -> str:
    """Code that prints a text on COM1, in any mode; it uses AL and DX."""
    return "".join(f"mov al, {byte}; {PRINT_AL}; " for byte in f"{message}\n".encode())


def print_hex_16() -> str:
    """A 16-bit routine `hex`: prints EBX as 8 digits and a newline. Uses EAX, CX, DX."""
    return f"""
    hex:
        mov cx, 8
    digit:
        rol ebx, 4
        mov al, bl
        and al, 15
        cmp al, 10
        jb decimal
        add al, 39
    decimal:
        add al, 48
        {PRINT_AL}
        dec cx
        jnz digit
        mov al, 10
        {PRINT_AL}
        ret
    """


def run(folder: Path, *boxes: TestBox, until: str = END, model: str = "corei7_skylake_x") -> Outcome:
    outcome = boot(folder, disk_with(*boxes), until=until, model=model)
    assert until in outcome.serial, outcome.serial + outcome.log[-600:]
    return outcome


def test_the_three_start_modes(tmp_path: Path) -> None:
    """A box starts in real, protected and long mode with the descriptor's registers, and prints."""
    real = assemble(f"mov ax, cs; test ax, ax; jnz bad; {printing('real')} bad: {HLT_FOREVER}", 16)
    protected = assemble(f"cmp esi, 0x1234; jne bad; {printing('protected')} bad: {HLT_FOREVER}", 32)
    long = assemble(f"mov rax, cr4; test eax, 0x2000; jnz bad; {printing('long')} bad: {HLT_FOREVER}", 64)
    outcome = run(
        tmp_path,
        TestBox("a", real),
        TestBox("b", protected, StartMode.PROTECTED, rsi=0x1234),
        TestBox("c", long, StartMode.LONG),
    )
    assert [text_of(outcome, name) for name in "abc"] == ["real", "protected", "long"]
    assert set(reasons_of(outcome).values()) == {"halted with interrupts off"}


def test_the_hypervisor_leaf_and_hidden_features(tmp_path: Path) -> None:
    """CPUID names the monitor, shows the hypervisor bit, and hides VMX, x2APIC and RDRAND."""
    code = assemble(
        f"""
        mov eax, 0x40000000; cpuid; call hex; mov ebx, ecx; call hex; mov ebx, edx; call hex
        mov eax, 1; xor ecx, ecx; cpuid; mov ebx, ecx; call hex
        mov eax, 0x12345678; cpuid; call hex
        {HLT_FOREVER}
        {print_hex_16()}
        """,
        16,
    )
    lines = text_of(run(tmp_path, TestBox("a", code)), "a").split()
    signature = b"".join(int(word, 16).to_bytes(4, "little") for word in lines[:1])
    assert signature == b"Terr"
    features = int(lines[3], 16)
    assert features >> 31 & 1
    assert not any(features >> bit & 1 for bit in (5, 21, 30))
    assert int(lines[4], 16) == 0


DEATHS = {
    "triple": ("lidt [0x2000]; xor bx, bx; div bx", "triple fault"),
    "halted": (HLT_FOREVER, "halted with interrupts off"),
    "reset": ("mov al, 0xfe; out 0x64, al; l: jmp l", "it asked for a reset"),
    "cf9": ("mov dx, 0xcf9; mov al, 6; out dx, al; l: jmp l", "it asked for a reset"),
}


def test_boxes_die_alone(tmp_path: Path) -> None:
    """Each way to die has its reason and dump; a box that loops for ever cannot stop the others, and one of them goes on printing."""
    lasting = assemble(
        f"""
        mov bp, 6
        next:
        mov al, 46
        {PRINT_AL}
        mov ecx, 30000
        wait: dec ecx
        jnz wait
        dec bp
        jnz next
        {printing("done")}
        l: jmp l
        """,
        16,
    )
    boxes = [TestBox(name, assemble(code, 16)) for name, (code, _) in DEATHS.items()]
    outcome = run(
        tmp_path, *boxes, TestBox("spin", assemble("l: jmp l", 16)), TestBox("lasting", lasting), until="......done"
    )
    assert reasons_of(outcome) == {name: reason for name, (_, reason) in DEATHS.items()}
    for name in DEATHS:
        assert re.search(rf"terrane\| box {name} .*rip 0x[0-9a-f]{{16}}", outcome.serial)


def test_an_unknown_exit_stops_its_box_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With WBINVD's handler taken out of the table, a box that executes it stops with a dump, and the other one goes on."""
    import vmm.exits.dispatch
    import vmm.scheduler
    from boot.handoff import MONITOR_BASE
    from dsl.compiler.pipeline import compile_program
    from tests.vmm import images
    from vmm.exits.stop import handle_unknown_exit
    from vmm.main import start
    from vmm.vcpu import Exit

    handlers = {key: value for key, value in vmm.exits.dispatch.ENTRIES.items() if key is not Exit.WBINVD_OR_WBNOINVD}
    monkeypatch.setattr(vmm.scheduler, "HANDLERS", dispatch(handlers, default=handle_unknown_exit))
    program = compile_program(start, base=MONITOR_BASE)
    monkeypatch.setattr(images, "monitor", lambda: program)
    broken = TestBox("broken", assemble("wbinvd; hlt", 16))
    other = TestBox(
        "other", assemble(f"mov ecx, 100000; wait: dec ecx; jnz wait; {printing('alive')} {HLT_FOREVER}", 16), rsi=1
    )
    outcome = run(tmp_path, broken, other)
    assert reasons_of(outcome)["broken"] == "unknown exit"
    assert "(exit reason 54" in outcome.serial
    assert text_of(outcome, "other") == "alive"


def test_interrupts_and_hlt(tmp_path: Path) -> None:
    """A box gets the PIT's interrupts through its PIC while it waits in HLT, and time passes as the PIT says."""
    handler = 0x1100
    main = f"""
        xor ax, ax
        mov ds, ax
        mov ss, ax
        mov word ptr [0x80], {handler}
        mov word ptr [0x82], 0
        mov al, 0x11; out 0x20, al; mov al, 0x20; out 0x21, al; mov al, 4; out 0x21, al; mov al, 1; out 0x21, al
        mov al, 0xfe; out 0x21, al
        mov al, 0x34; out 0x43, al; mov al, 0x9c; out 0x40, al; mov al, 0x2e; out 0x40, al
        xor bx, bx
        rdtsc
        mov esi, eax
        next:
        sti
        hlt
        cmp bx, 20
        jb next
        cli
        rdtsc
        sub eax, esi
        mov ebx, eax
        call hex
        {HLT_FOREVER}
        {print_hex_16()}
    """
    interrupt = assemble("inc bx; mov al, 0x20; out 0x20, al; iret", 16, handler)
    box = TestBox("a", assemble(main, 16), segments=(Segment(handler, interrupt),))
    ticks = int(text_of(run(tmp_path, box), "a"), 16)
    expected = 20 * 11_932 / 1_193_182 * 4_000_000  # TSC ticks: ips is 4 M
    assert abs(ticks - expected) < expected * 0.06, ticks


def hypercall(number: int, **registers: int) -> str:
    loads = "; ".join(f"mov {name}, {value}" for name, value in registers.items())
    return f"mov rax, {number}; {loads or 'nop'}; vmcall; add al, 48; {PRINT_AL}"


MEMORY = 2 << 20
CALLS = [
    # call, registers, status
    (0, {}, 0),
    (7, {}, 1),
    (2**63, {}, 1),
    (1, {"rdi": 0x100000, "rsi": 3184}, 0),
    (1, {"rdi": 0x100000, "rsi": 3183}, 3),
    (1, {"rdi": MEMORY - 3183, "rsi": 3184}, 2),
    (1, {"rdi": 2**64 - 16, "rsi": 4096}, 2),
    (1, {"rdi": MEMORY - 3184, "rsi": 2**64 - 1}, 0),
    (2, {"rdi": 0x120000, "rsi": 327, "rdx": 0x130000, "r10": 1028}, 3),
    (2, {"rdi": 0x120000, "rsi": 329, "rdx": 0x130000, "r10": 1028}, 3),
    (2, {"rdi": 0x120000, "rsi": 328, "rdx": 0x130000, "r10": 1027}, 3),
    (2, {"rdi": 0x120000, "rsi": 328, "rdx": MEMORY - 1027, "r10": 1028}, 2),
    (2, {"rdi": MEMORY - 327, "rsi": 328, "rdx": 0x130000, "r10": 1028}, 2),
    (2, {"rdi": 0x120000, "rsi": 328, "rdx": 0x130000, "r10": 1028}, 0),
    (2, {"rdi": 0x140000, "rsi": 328, "rdx": 0x130000, "r10": 1028}, 3),  # data_size 257
    (3, {"rdi": 0x100000, "rsi": 256}, 0),
    (3, {"rdi": 0x100000, "rsi": 257}, 3),
    (3, {"rdi": 0x100000, "rsi": 0}, 3),
    (3, {"rdi": MEMORY - 255, "rsi": 256}, 2),
    (4, {"rdi": 0x1000, "rsi": 257}, 3),
    (4, {"rdi": 0x1000, "rsi": 0}, 3),
    (4, {"rdi": 2**64 - 1, "rsi": 2}, 2),
    (5, {}, 0),
]


def test_hypercalls_check_every_argument(tmp_path: Path) -> None:
    """Each bad argument has its status, each good one 0; and from ring 3 the answer is NOT_PERMITTED."""
    calls = "; ".join(hypercall(number, **registers) for number, registers, _ in CALLS)
    code = assemble(f"{calls}; {printing('')} {HLT_FOREVER}", 64)
    bad_request = bytes(64) + (257).to_bytes(4, "little")
    box = TestBox("a", code, StartMode.LONG, segments=(Segment(0x140000, bad_request),))
    assert text_of(run(tmp_path, box), "a") == "".join(str(status) for _, _, status in CALLS)


def test_ring_3_needs_the_flag(tmp_path: Path) -> None:
    """VMCALL from ring 3 is NOT_PERMITTED, and permitted with the descriptor's flag."""
    gdt = 0x3000
    descriptors = b"".join(
        value.to_bytes(8, "little")
        for value in (0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00CFFB000000FFFF, 0x00CFF3000000FFFF)
    )
    pointer = (39).to_bytes(2, "little") + gdt.to_bytes(4, "little")
    code = assemble(
        """
        lgdt [0x3100]
        mov ax, 0x23
        mov ds, ax
        push 0x23
        push 0x7000
        pushfd
        or dword ptr [esp], 0x3000
        push 0x1b
        push 0x1200
        iretd
        """,
        32,
    )
    call = f"vmcall; add al, 48; {PRINT_AL}; mov al, 10; {PRINT_AL}"
    user = assemble(f"mov eax, 0; {call}; mov eax, 7; {call}; ud2", 32, 0x1200)
    segments = (Segment(gdt, descriptors), Segment(0x3100, pointer), Segment(0x1200, user))
    outcome = run(
        tmp_path,
        TestBox("closed", code, StartMode.PROTECTED, segments=segments),
        TestBox("flagged", code, StartMode.PROTECTED, segments=segments, flags=2),
    )
    assert text_of(outcome, "closed").split() == ["4", "4"]
    assert text_of(outcome, "flagged").split() == ["0", "1"]
    assert reasons_of(outcome) == {"closed": "triple fault", "flagged": "triple fault"}


def test_absent_memory_reads_all_ones(tmp_path: Path) -> None:
    """Beyond the box's memory, plain moves read all ones and write nowhere; other instructions get #GP, here without a handler."""
    code = assemble(
        f"""
        mov eax, 0
        mov eax, dword ptr [0x10000000]
        cmp eax, -1
        jne bad
        mov dword ptr [0x10000000], 5
        movzx ebx, word ptr [0x10000000]
        cmp ebx, 0xffff
        jne bad
        mov cl, byte ptr [0xfee00030]
        cmp cl, 0xff
        jne bad
        {printing("good")}
        add dword ptr [0x10000000], 1
        bad:
        {printing("bad")}
        {HLT_FOREVER}
        """,
        32,
    )
    outcome = run(tmp_path, TestBox("a", code, StartMode.PROTECTED))
    assert text_of(outcome, "a") == "good"
    assert reasons_of(outcome) == {"a": "triple fault"}


REFUSALS: dict[str, tuple[Callable[[], list[TestBox]], str]] = {
    "too much memory": (lambda: [TestBox("a", b"\xf4", memory_size=128 << 20)], "too little free memory"),
    "two boxes with one label": (
        lambda: [TestBox("a", b"\xf4"), TestBox("a", b"\xf4\xf4")],
        "another box has its label",
    ),
    "unknown device": (lambda: [TestBox("a", b"\xf4", devices=1 << 7)], "breaks the rule for devices"),
    "segment of another size": (
        lambda: [TestBox("a", b"\xf4", changes={512 + 8: (2).to_bytes(8, "little")})],
        "a segment's size is not its entry's",
    ),
    "segment that is not there": (
        lambda: [TestBox("a", b"\xf4", changes={512 + 24: b"\1\2\3\4"})],
        "no entry with a segment's SHA-256",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_bad_boxes_are_refused(tmp_path: Path, name: str) -> None:
    """The monitor says which box it refuses and why, and starts none."""
    boxes, words = REFUSALS[name]
    outcome = boot(tmp_path, disk_of(partition_of(parts_of(boxes()))), until=words, timeout_s=40)
    assert f"refused: box {len(boxes()) - 1}" in outcome.serial
    assert words in outcome.serial
    assert "focus" not in outcome.serial


def test_a_machine_without_vmx(tmp_path: Path) -> None:
    """A processor that has all but VT-x is refused by the monitor, by the check that failed. (What else may lack: test_capability.)"""
    outcome = boot(tmp_path, disk_with(TestBox("a", b"\xf4")), until="cannot run boxes", model="ryzen", timeout_s=40)
    assert "the processor has no VT-x, or it is hidden: CPUID leaf 1, ECX bit 5" in outcome.serial, outcome.serial
    assert "focus" not in outcome.serial


@pytest.mark.parametrize("model", ["broadwell_ult", "corei7_icelake_u"])
def test_other_processors(tmp_path: Path, model: str) -> None:
    """The same image runs on other models."""
    box = TestBox("a", assemble(f"mov eax, 0; cpuid; {printing('alive')} {HLT_FOREVER}", 16), devices=DEVICE_SERIAL)
    assert text_of(run(tmp_path, box, model=model), "a") == "alive"

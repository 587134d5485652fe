"""The audits find what is planted in small programs, and nothing in the loader and the monitor as they are."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from dsl.compiler.assembly import REGION
from dsl.compiler.capstone import decode
from dsl.compiler.frames import frames
from dsl.compiler.keystone import assemble
from dsl.compiler.link import Step
from dsl.compiler.pipeline import Program, compile_function
from dsl.lang import asm, frame_array, function_address, machine, static_array, u8, u64
from pipeline.audit.code import Code, Finding, code_of
from pipeline.audit.instructions import NEVER, PRIVILEGED, Allowed, check_instructions
from pipeline.audit.regions import check_regions, find_regions
from pipeline.audit.sections import check_sections
from pipeline.audit.stack import Stack, check_stacks, find_recursion

pytestmark = pytest.mark.t0
ROOT = Path(__file__).resolve().parents[2]
HERE: Final = __name__
STRICT: Final = Allowed({}, frozenset({0x1B}), once=("vmxoff",))
CELLS: Final = static_array(u64, 4)
FORGETFUL: Final = REGION.replace("movaps xmm15, xmmword ptr [rsp + 240]; ", "")
OWN_STACK: Final = static_array(u8, 4096)


@machine
def leaf(a: u64) -> u64:
    """A kilobyte of frame."""
    room = frame_array(u64, 128)
    room[a] = a
    return room[a ^ 1]


@machine
def middle(a: u64) -> u64:
    """Calls it."""
    return leaf(a) + leaf(a + 1) + leaf(a + 2)


@machine(depth=5)
def recursive(a: u64) -> u64:
    """Calls itself."""
    return u64(0) if a == 0 else recursive(a - 1) + a


@machine(depth=5)
def ping(a: u64) -> u64:
    """Calls itself by way of another."""
    return u64(0) if a == 0 else pong(a - 1) + a


@machine(depth=5)
def pong(a: u64) -> u64:
    """The other."""
    return u64(1) if a == 0 else ping(a - 1) ^ a


@machine(naked=True)
def pushing() -> None:
    """A loop that pushes."""
    asm("again:\n push rax\n jmp again")


@machine(naked=True)
def reaching_below() -> None:
    """Writes below its stack pointer."""
    asm("lea rdi, [rsp - 3000]\n ret")


@machine(naked=True)
def own_stack() -> None:
    """Sets a stack of its own and calls."""
    asm("lea rsp, [rip + {stack}]\n add rsp, 4096\n call {callee}\n ud2", stack=OWN_STACK, callee=middle)


@machine(naked=True)
def aligning() -> None:
    """Keeps the stack pointer in a register, as around a call of firmware, and goes on with it afterwards."""
    asm(
        "push rbx; mov rbx, rsp; and rsp, -16; sub rsp, 48; call {callee}; mov rsp, rbx; pop rbx; sub rsp, 1000; add rsp, 1000; ret",
        callee=reaching_below,
    )


@machine(naked=True)
def taken() -> None:
    """Reached by its address alone."""
    asm("ret")


@machine
def takes() -> u64:
    """Takes it."""
    return function_address(taken).as_u64()


@machine(naked=True)
def clean() -> None:
    """Writes a listed MSR."""
    asm("mov ecx, 0x1b\n xor eax, eax\n xor edx, edx\n wrmsr\n ret")


@machine(naked=True)
def jumps_indirectly() -> None:
    """By a register."""
    asm("jmp rax")


@machine(naked=True)
def calls_indirectly() -> None:
    """Through memory."""
    asm("call qword ptr [rdi + 8]\n ret")


@machine(naked=True)
def calls_inside() -> None:
    """Past the first instruction of another."""
    asm("call {other} + 4\n ret", other=uses_vectors)


@machine(naked=True)
def uses_vectors() -> None:
    """Legacy SSE."""
    asm("pxor xmm0, xmm1\n ret")


@machine(naked=True)
def drops_caches() -> None:
    """INVD."""
    asm("invd\n ret")


@machine(naked=True)
def leaves_twice() -> None:
    """VMXOFF in two places."""
    asm("vmxoff\n vmxoff\n ret")


@machine(naked=True)
def unlisted_msr() -> None:
    """IA32_DEBUGCTL."""
    asm("mov ecx, 0x1d9\n wrmsr\n ret")


@machine(naked=True)
def msr_of_a_product() -> None:
    """In the second register that an instruction writes."""
    asm("mov ecx, 0x1b\n mulx rax, rcx, rdi\n wrmsr\n ret")


@machine(naked=True)
def msr_of_an_exchange() -> None:
    """By an instruction whose name begins like one that writes nothing."""
    asm("mov ecx, 0x1b\n cmpxchg ecx, edx\n wrmsr\n ret")


@machine(naked=True)
def msr_with_another_byte() -> None:
    """The second byte of the number is not what was loaded."""
    asm("mov ecx, 0x1b\n mov ch, dl\n wrmsr\n ret")


@machine(naked=True)
def computed_msr() -> None:
    """From the caller."""
    asm("mov ecx, edi\n wrmsr\n ret")


@machine(naked=True)
def msr_by_two_ways() -> None:
    """A constant, but not on the only way to it."""
    asm("mov ecx, edi\n test esi, esi\n jz there\n mov ecx, 0x1b\n there:\n wrmsr\n ret")


@machine(naked=True)
def stops_interrupts() -> None:
    """CLI away from home."""
    asm("cli\n ret")


@machine(naked=True)
def pages_off() -> None:
    """CR0."""
    asm("mov cr0, rax\n ret")


SAMPLES: Final[dict[str, str | bytes]] = {  # as Capstone names it: text for Keystone, if it is not that alone; bytes where it knows none
    "invd": "", "bzhi": "bzhi rax, rbx, rcx", "bextr": "bextr rax, rbx, rcx", "int3": "", "syscall": "", "sysret": b"\x0f\x07",
    "sysretq": b"\x48\x0f\x07", "sysexit": b"\x0f\x35", "sysexitq": b"\x48\x0f\x35",
    "sysenter": "", "retf": b"\xcb", "iret": b"\x66\xcf", "iretd": b"\xcf", "std": "", "int1": b"\xf1", "wbnoinvd": b"\xf3\x0f\x09",
    "stac": "", "clac": "",
    "swapgs": "", "cli": "", "sti": "", "hlt": "", "lgdt": "lgdt [rdi]", "lidt": "lidt [rdi]", "lldt": "lldt ax", "ltr": "ltr ax",
    "lmsw": "lmsw ax", "clts": "", "invlpg": "invlpg [rdi]", "invpcid": "invpcid rax, [rdi]", "wbinvd": "", "wrmsr": "", "xsetbv": "",
    "iretq": "", "retfq": "", "vmxon": "vmxon [rdi]", "vmxoff": "", "vmlaunch": "", "vmresume": "", "vmclear": "vmclear [rdi]",
    "vmptrld": "vmptrld [rdi]", "vmptrst": "vmptrst [rdi]", "invept": "invept rax, [rdi]", "invvpid": "invvpid rax, [rdi]",
    "int": "int 0x20", "popfq": "", "rdfsbase": "rdfsbase rax", "rdgsbase": "rdgsbase rax", "wrfsbase": "wrfsbase rax",
    "wrgsbase": "wrgsbase rax", "wrpkru": b"\x0f\x01\xef", "getsec": b"\x0f\x37", "rsm": "", "monitor": b"\x0f\x01\xc8",
    "mwait": b"\x0f\x01\xc9", "popf": b"\x66\x9d",
    "emms": "", "ldmxcsr": "ldmxcsr [rdi]", "vldmxcsr": "vldmxcsr [rdi]", "fxrstor": "fxrstor [rdi]",
    "fxrstor64": "fxrstor64 [rdi]", "xrstor": "xrstor [rdi]", "xrstor64": "xrstor64 [rdi]", "xrstors": b"\x0f\xc7\x1f",
    "xrstors64": b"\x48\x0f\xc7\x1f", "vzeroall": "", "vzeroupper": "",
    "vmrun": b"\x0f\x01\xd8", "vmload": b"\x0f\x01\xda", "vmsave": b"\x0f\x01\xdb", "clgi": "", "stgi": "", "skinit": b"\x0f\x01\xde",
}  # fmt: skip


def planted_code(sample: str | bytes) -> Code:
    """A program of one function with one instruction: its bytes from Keystone, its text from Capstone, as in a linked program."""
    data = sample if isinstance(sample, bytes) else assemble(sample, 0x1000)
    steps = [Step(at, at + size, decoded) for at, size, decoded in decode(data, 0x1000)]
    assert len(steps) == 1, sample
    return Code(
        "planted", None, {"planted.function": steps}, {}, {"planted.function": ()}, {0x1000: "planted.function"}
    )


def test_every_mnemonic_of_the_rules_is_planted() -> None:
    """The samples are the table's, no more and no less."""
    assert set(SAMPLES) == set(NEVER) | PRIVILEGED


@pytest.mark.parametrize("mnemonic", SAMPLES)
def test_an_instruction_away_from_home_is_found(mnemonic: str) -> None:
    """Encoded by the assembler and named by the decoder, so that a misspelt rule shows."""
    rules = {finding.rule for finding in check_instructions(planted_code(SAMPLES[mnemonic] or mnemonic), STRICT)}
    assert rules == ({"never"} if mnemonic in NEVER else {"home", "wrmsr"} if mnemonic == "wrmsr" else {"home"})


@pytest.mark.parametrize(
    "text",
    [
        *("mov cr0, rax", "mov cr3, rax", "mov cr4, rax", "mov cr8, rax", "mov dr7, rax", "mov dr6, rax"),
        *(
            "mov ds, ax",
            "mov es, [rdi]",
            "mov ss, eax",
            "mov gs, rax",
            "pop fs",
            "pop gs",
            "lss eax, [rdi]",
            "lgs rax, [rdi]",
        ),
    ],
)
def test_a_register_of_the_system_written_away_from_home_is_found(text: str) -> None:
    assert [finding.rule for finding in check_instructions(planted_code(text), STRICT)] == ["home"]


@pytest.mark.parametrize(
    "text",
    [
        "movaps xmm15, xmm1",
        "vpxor ymm0, ymm1, ymm2",
        "vmovdqu64 zmm3, [rdi]",
        "fld st(1)",
        "fld1",
        "fld dword ptr [rdi]",
        "fninit",
        "aesenc xmm1, [rdi]",
    ],
)
def test_a_vector_register_is_found(text: str) -> None:
    assert [finding.rule for finding in check_instructions(planted_code(text), STRICT)] == ["vector"]


@pytest.mark.parametrize("text", ["jmp rax", "jmp [rdi]", "call rcx", "call [rip + 8]", "jmp [rax*8 + 0x1000]"])
def test_an_indirect_branch_is_found(text: str) -> None:
    assert [finding.rule for finding in check_instructions(planted_code(text), STRICT)] == ["indirect"]


def compiled(function: Callable[..., Any], **options: Any) -> Program:
    return compile_function(function, **options)


def findings_of(function: Callable[..., Any], allowed: Allowed = STRICT) -> list[Finding]:
    return check_instructions(code_of("planted", compiled(function)), allowed)


HOME: Final = Allowed({"wrmsr": (str(Path(__file__).relative_to(ROOT)),)}, frozenset({0x1B}))


def test_a_listed_msr_at_home_is_fine() -> None:
    assert findings_of(clean, HOME) == []


@pytest.mark.parametrize(
    ("function", "allowed", "rule", "text"),
    [
        (jumps_indirectly, STRICT, "indirect", "jmp rax: expected direct calls and jumps"),
        (calls_indirectly, STRICT, "indirect", "call qword ptr [rdi + 8]: expected direct"),
        (calls_inside, STRICT, "indirect", "expected the start of a function, found none there"),
        (uses_vectors, STRICT, "vector", "pxor xmm0, xmm1: expected general registers"),
        (drops_caches, STRICT, "never", "expected no invd"),
        (leaves_twice, STRICT, "once", "vmxoff: expected in one place, found in 2: "),
        (clean, STRICT, "home", "expected wrmsr in no file of this program alone"),
        (unlisted_msr, HOME, "wrmsr", "expected one of the listed MSRs, found 0x1d9"),
        (computed_msr, HOME, "wrmsr", "as a constant, found a computed one"),
        (msr_of_a_product, HOME, "wrmsr", "as a constant, found a computed one"),
        (msr_of_an_exchange, HOME, "wrmsr", "as a constant, found a computed one"),
        (msr_with_another_byte, HOME, "wrmsr", "as a constant, found a computed one"),
        (msr_by_two_ways, HOME, "wrmsr", "as a constant, found a computed one"),
        (stops_interrupts, STRICT, "home", "expected cli in no file"),
        (pages_off, STRICT, "home", "expected mov to control register in no file"),
    ],
)
def test_a_planted_instruction_is_found(function: Callable[..., Any], allowed: Allowed, rule: str, text: str) -> None:
    found = [finding for finding in findings_of(function, allowed) if finding.rule == rule]
    assert len(found) == 1, found
    assert text in found[0].text
    assert f"test_audit.{function.__name__}" in found[0].text


def test_calls_by_address_have_a_home_and_jumps_none() -> None:
    allowed = Allowed({}, frozenset(), indirect=HOME.homes["wrmsr"])
    assert findings_of(calls_indirectly, allowed) == []
    assert [finding.rule for finding in findings_of(jumps_indirectly, allowed)] == ["indirect"]


@machine(simd=True)
def in_region(a: u64) -> u64:
    """What a kernel does, where it may."""
    uses_vectors()
    return a + 1


@machine
def reaches_it(a: u64) -> u64:
    """Both ways."""
    return in_region(a) ^ 5


@machine
def reaches_past_it(a: u64) -> u64:
    """Both ways."""
    uses_vectors()
    return in_region(a) ^ 5


@machine(naked=True)
def almost_a_region() -> None:
    """A region that forgets XMM15."""
    asm(FORGETFUL, body=uses_vectors)


def region_findings(function: Callable[..., Any]) -> list[str]:
    return [
        finding.text
        for finding in check_regions(code_of("planted", compiled(function)), (f"{HERE}.{function.__name__}",))
    ]


def test_vectors_in_a_region_are_fine() -> None:
    code = code_of("planted", compiled(reaches_it))
    assert find_regions(code) == {f"{HERE}.in_region": f"{HERE}.in_region.body"}
    assert region_findings(reaches_it) == []
    assert region_findings(middle) == []
    here = str(Path(__file__).relative_to(ROOT))
    assert check_instructions(code, Allowed({}, frozenset(), vectors=(here,))) == []
    rules = [finding.rule for finding in check_instructions(code, STRICT)]
    assert rules == ["vector"]  # the kernel's, which needs a home; the region's own moves do not


@pytest.mark.parametrize(
    ("function", "path"),
    [(uses_vectors, "uses_vectors"), (reaches_past_it, "reaches_past_it > {0}.uses_vectors"), (almost_a_region, "almost_a_region")],
)  # fmt: skip
def test_a_vector_outside_a_region_is_found(function: Callable[..., Any], path: str) -> None:
    """By the way that leads there; a region that restores fewer registers than it saved is none."""
    assert f"planted: {HERE}.{path.format(HERE)}: expected vector registers in a simd region alone" in region_findings(
        function
    )


def test_vex_is_found_even_where_vectors_are_at_home() -> None:
    places = {0x1000: ("a.py", 1)}
    for text, rules in (("pxor xmm0, xmm1", []), ("vpxor xmm0, xmm1, xmm2", ["vector"])):
        code = replace(planted_code(text), places=places)
        assert [
            finding.rule for finding in check_instructions(code, Allowed({}, frozenset(), vectors=("a.py",)))
        ] == rules


def stack(size: int, *roots: str, interrupts: tuple[str, ...] = ()) -> Stack:
    at = tuple((f"{HERE}.{name}", 0) for name in roots)
    return Stack("planted", size, at, tuple((f"{HERE}.{name}", 48) for name in interrupts))


def test_the_depth_is_what_a_run_uses() -> None:
    """The bound is reached: in Unicorn the deepest word written lies within a few words of it."""
    from tests.execution.emulated import STACK, STACK_SIZE, Emulated

    program = compiled(middle, disable=("inline",))
    findings, lines = check_stacks(code_of("planted", program), (stack(4096, "middle"),))
    assert findings == []
    bound = int(lines[0].split("stack planted: ")[1].split(" of ")[0].replace(",", ""))
    emulated = Emulated(program)
    emulated.engine.mem_write(STACK, b"\xcc" * STACK_SIZE)
    top = STACK + STACK_SIZE - 0x1000
    assert emulated.call(f"{HERE}.middle", [0]) != "stopped"
    content = bytes(emulated.engine.mem_read(STACK, top - STACK))
    used = len(content.lstrip(b"\xcc"))
    assert used <= bound <= used + 64


def test_a_stack_too_small_is_found_with_the_calls_that_need_it() -> None:
    code = code_of("planted", compiled(middle, disable=("inline",)))
    (finding,), _ = check_stacks(code, (stack(1000, "middle"),))
    assert "middle > leaf: expected at most 1,000, found 1," in finding.text


def test_interrupts_come_on_top() -> None:
    code = code_of("planted", compiled(middle, disable=("inline",)))
    (finding,), _ = check_stacks(code, (stack(1500, "middle", interrupts=("leaf",)),))
    assert "middle > leaf, then leaf: expected at most 1,500, found 2," in finding.text


def test_what_lies_below_the_stack_pointer_counts() -> None:
    (finding,), _ = check_stacks(code_of("planted", compiled(reaching_below)), (stack(3000, "reaching_below"),))
    assert finding.text.endswith("expected at most 3,000, found 3,008")


def test_a_stack_pointer_that_is_kept_comes_back() -> None:
    """8 for the return address, 8 for rbx, up to 8 to align, 48, and what the callee reaches; behind it, 16 and 1000."""
    code = code_of("planted", compiled(aligning))
    findings, lines = check_stacks(code, (stack(4096, "aligning"),))
    assert findings == []
    assert f" {8 + 8 + 8 + 48 + 3008:,} of " in lines[0]
    after = {
        step.text: frames(code.functions[f"{HERE}.aligning"])[step.address]
        for step in code.functions[f"{HERE}.aligning"]
    }
    assert (after["pop rbx"].depth, after["sub rsp, 0x3e8"].depth, after["ret"].depth) == (16, 8, 8)
    assert after["pop rbx"].saved == (("rbx", 16),)


@machine(naked=True)
def jumping_by_ret(a: u64) -> None:
    """Goes where its argument says."""
    asm("push rdi; ret")


def test_a_jump_by_ret_is_found() -> None:
    (finding,), _ = check_stacks(code_of("planted", compiled(jumping_by_ret)), (stack(4096, "jumping_by_ret"),))
    assert f"{HERE}.jumping_by_ret: expected its return address at ret, found what it pushed" in finding.text


@pytest.mark.slow
def test_a_loop_that_pushes_is_found_unless_its_depth_is_declared() -> None:
    code = code_of("planted", compiled(pushing))
    findings, _ = check_stacks(code, (stack(4096, "pushing"),))
    assert f"{HERE}.pushing: a loop pushes without end" in findings[0].text
    assert check_stacks(code, (stack(4096, "pushing"),), {f"{HERE}.pushing": 256})[0] == []
    findings, _ = check_stacks(code, (stack(4096, "pushing"),), {f"{HERE}.gone": 256, f"{HERE}.pushing": 8})
    assert "gone, whose depth is declared, found none" in findings[0].text


def test_a_stack_that_is_set_needs_a_root() -> None:
    code = code_of("planted", compiled(own_stack))
    findings, _ = check_stacks(code, (stack(4096, "own_stack"),))
    assert "own_stack enters" in findings[0].text
    assert "on a stack of its own: expected it among the roots" in findings[0].text
    assert check_stacks(code, (stack(4096, "own_stack", "middle"),))[0] == []


def test_a_function_that_no_root_reaches_is_found() -> None:
    findings, _ = check_stacks(code_of("planted", compiled(takes)), (stack(4096, "takes"),))
    assert [finding.text for finding in findings] == [
        f"planted: no root reaches {HERE}.taken: expected an entry in the table of stacks"
    ]


def test_a_root_that_is_gone_is_found() -> None:
    findings, _ = check_stacks(code_of("planted", compiled(takes)), (stack(4096, "takes", "nothing"),))
    assert "expected a function tests.pipeline.test_audit.nothing, a root of a stack, found none" in findings[0].text


@pytest.mark.parametrize(
    ("function", "path"), [(recursive, "recursive -> {0}.recursive"), (ping, "ping -> {0}.pong -> {0}.ping")]
)
def test_recursion_is_found(function: Callable[..., Any], path: str) -> None:
    code = code_of("planted", compiled(function, disable=("inline",)))
    assert [finding.text for finding in find_recursion(code)] == [f"planted: {HERE}.{path.format(HERE)}"]
    assert find_recursion(code_of("planted", compiled(middle))) == []


def test_sections_apart_are_fine() -> None:
    assert check_sections("planted", compiled(own_stack)) == []


def test_a_page_with_two_rights_is_found() -> None:
    program = compiled(own_stack)
    image = bytearray(program.image)
    image[12:16] = (int.from_bytes(image[12:16], "little") + 8).to_bytes(4, "little")
    program.linked.image = bytes(image)
    assert any(
        "expected ends in order, multiples of 4096" in finding.text for finding in check_sections("planted", program)
    )


def test_data_among_code_is_found() -> None:
    program = compiled(own_stack)
    name = f"{HERE}.OWN_STACK"
    program.linked.symbols[name] = replace(program.linked.symbols[name], address=program.base + 64)
    (finding,) = check_sections("planted", program)
    assert f"expected the object {name} from" in finding.text


def test_a_segment_that_is_writable_and_executable_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from dsl.compiler import elf

    monkeypatch.setitem(elf.SEGMENTS, ".text", 7)
    found = [finding.text for finding in check_sections("planted", compiled(own_stack))]
    assert found == ["planted: expected no segment both writable and executable, found that of 0x1000000"]


@pytest.mark.slow
def test_loader_and_monitor_pass() -> None:
    """As `build.py check` runs it."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.audit"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing found" in done.stdout

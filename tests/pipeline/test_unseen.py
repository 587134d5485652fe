"""What is said to be unseen is so in every run of the code; what is not certain is not said."""

from __future__ import annotations

import pytest

from pipeline.unseen import Function, Step, same_value

pytestmark = pytest.mark.t0
COPY = "rep movsb byte ptr [rdi], byte ptr [rsi]"


def function(*texts: str) -> Function:
    """Instructions of one byte each; a jump names the place where it goes by its number."""
    steps = []
    for offset, text in enumerate(texts):
        is_jump = text.startswith("j")
        steps.append(Step(offset, text, int(text.split()[1]) if is_jump else None))
    return Function(steps)


@pytest.mark.parametrize(
    ("texts", "is_unseen"),
    [
        (("mov rbx, rdi", "mov rdi, rbx"), True),
        (("mov ebx, edi", "mov edi, ebx"), False),  # the upper half may have been something
        (("mov rbx, rdi", "mov bl, 1", "mov rdi, rbx"), False),
        (("mov rbx, rdi", "call 0x9", "mov rdi, rbx"), False),
        (("mov rbx, rdi", COPY, "mov rdi, rbx"), False),
        (("mov rbx, rdi", "jmp 3", "add rdi, 1", "mov rdi, rbx"), False),  # which is jumped to
        (("and ecx, 7", "and ecx, 7", "ret"), True),
        (("and ecx, 7", "and ecx, 3", "ret"), False),
        (("and ecx, 7", "and ecx, 7", "je 0"), False),  # its flags are looked at
        (("and ecx, 7", "and ecx, 7", "mov eax, 1", "adc eax, 0"), False),
        (("and ecx, 7", "and ecx, 7", "test al, al", "je 0"), True),
        (("movzx ecx, byte ptr [rdi]", "movzx ecx, cl"), True),
        (("movzx ecx, word ptr [rdi]", "movzx ecx, cl"), False),
        (("test rax, rax", "jne 9", "xor eax, eax", "ret"), True),
        (("test eax, eax", "jne 9", "xor eax, eax", "ret"), False),
        (("test rax, rax", "je 9", "xor eax, eax", "ret"), False),
        (("mov eax, 0x681e", "vmread rdx, rax", "mov eax, 0x681e"), True),
        (("mov eax, 0x681e", "vmread rax, rdx", "mov eax, 0x681e"), False),
        (("mov eax, 5", "mov ah, 1", "mov eax, 5"), False),
        (("add ecx, edx", "mov ecx, ecx"), True),
        (("add rcx, rdx", "mov ecx, ecx"), False),
        (("mov eax, 0x440c", "vmread rcx, rax", "mov ecx, ecx"), True),
        (("mov eax, 0x681e", "vmread rcx, rax", "mov ecx, ecx"), False),
    ],
)
def test_an_instruction_that_changes_nothing(texts: tuple[str, ...], is_unseen: bool) -> None:
    """It puts into its register what is certain to be there, and its flags are nobody's."""
    made = function(*texts)
    found = [made.changes_nothing(place, values) for place, (_, values) in enumerate(made.known())]
    assert any(found) == is_unseen


@pytest.mark.parametrize(
    ("texts", "changed", "is_same"),
    [
        (("mov rbx, rdi", "add rax, qword ptr [rbx + 8]"), "add rax, qword ptr [rdi + 8]", True),
        (("mov rbx, rdi", "add rbx, 1"), "add rdi, 1", False),  # another register is written
        (("mov rbx, rdi", "add rdi, 8", "cmp rbx, 5"), "cmp rdi, 5", False),
        (("mov ebx, edi", "cmp bl, 5"), "cmp dil, 5", True),
        (("mov ebx, edi", "cmp rbx, 5"), "cmp rdi, 5", False),
        (("mov rcx, rax", "xor eax, eax"), "xor eax, ecx", True),
        (("cmp rcx, 5",), "cmp rax, 5", False),
    ],
)
def test_another_register_with_the_same(texts: tuple[str, ...], changed: str, is_same: bool) -> None:
    """Only one that is read, and at the width at which it is known."""
    for step, values in function(*texts).known():
        if step.offset == len(texts) - 1:
            assert same_value(values, step, changed) == is_same


@pytest.mark.parametrize(
    ("texts", "of_checks"),
    [
        (("cmp al, 2", "jae 3", "ret", "ud2"), {0, 1}),
        (("cmp al, 2", "jae 3", "je 0", "ud2"), {1}),  # the comparison serves a branch, too
        (("cmp al, 2", "jae 3", "ret", "nop"), set()),
        (("mov rax, rdx", "sub rax, rcx", "cmp r8, rax", "ja 6", "xor eax, eax", "ret", "ud2"), {0, 1, 2, 3}),
        (("mov rax, rdx", "sub rax, rcx", "cmp r8, rax", "ja 5", "ret", "ud2"), {2, 3}),  # rax is the result
        (("cmp rcx, rax", "ja 4", COPY, "ret", "ud2"), {0, 1}),
        (("mov rbx, 9", "cmp rcx, rbx", "ja 6", COPY, "mov rbx, 1", "ret", "ud2"), {0, 1, 2}),
        (("mov rsi, r8", "cmp r9, rsi", "ja 6", COPY, "mov rsi, r9", "ret", "ud2"), {1, 2}),
        (("mov eax, 9", "cmp r9, rax", "ja 6", "rep stosq qword ptr [rdi], rax", "mov eax, 1", "ret", "ud2"), {1, 2}),
        (("sub rax, rcx", "jb 4", "xor eax, eax", "ret", "ud2"), {1}),  # the flags come from what is computed
    ],
)
def test_what_serves_a_check_alone(texts: tuple[str, ...], of_checks: set[int]) -> None:
    """Jumps to where a failed check stops, their comparisons, and what nothing else reads."""
    assert function(*texts).checking() == of_checks

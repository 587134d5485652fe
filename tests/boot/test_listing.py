"""Listings: what the assembler gets wrong in silence is an error here."""

from __future__ import annotations

import pytest

from boot.stages import (
    BODY_BASE,
    BODY_LIMIT,
    STAGE1_LIMIT,
    STAGE2_LOADED,
    STAGING_BASE,
    STAGING_LIMIT,
    emit_stage1,
    emit_stage2,
)
from dsl.compiler.keystone import AssemblyError
from dsl.compiler.listing import assemble

pytestmark = pytest.mark.t0


def test_calls_and_returns_in_16_bits_move_two_bytes() -> None:
    assert assemble("call there\nthere: ret", 0x7C00) == bytes.fromhex("e80000 c3")


def test_labels_symbols_and_data() -> None:
    code = assemble(
        'mov si, words\nhlt\nwords: .asciz "a, b"\n.word {size}, words // comment', 0x8000, {"size": 0x1234}
    )
    assert code == bytes.fromhex("be0480 f4") + b"a, b\0" + bytes.fromhex("3412 0480")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("mov eax, 0x123456789", "line 1"),
        ("mov al, 0x1ff", "line 1"),
        ("hlt\nmov ax, 0x12345", "line 2"),
        (".byte 256", "line 1: '.byte 256'"),
        ("nop\nfrobnicate eax", "line 2: 'frobnicate eax'"),
        ("jmp nowhere", ""),
        (".space 4", "line 1: directive .space"),
        ("mov eax, {size}", "line 1: no symbol 'size'"),
        (".code64\nmov ecx, dword ptr [0x10008]", "line 2"),
        ("", "returned nothing"),
    ],
)
def test_what_is_not_encoded_as_asked_is_an_error(text: str, complaint: str) -> None:
    with pytest.raises(AssemblyError) as raised:
        assemble(text, 0x7C00)
    assert complaint in str(raised.value)


def test_the_stages_fit_and_are_the_same_each_time() -> None:
    stage1, stage2 = emit_stage1(34), emit_stage2(4096, 50000, 98, 102400)
    assert len(stage1) <= STAGE1_LIMIT
    assert len(stage2) <= STAGE2_LOADED
    assert (stage1, stage2) == (emit_stage1(34), emit_stage2(4096, 50000, 98, 102400))
    assert emit_stage2(4097, 50000, 98, 102400) != stage2


@pytest.mark.parametrize("lba", [0, (1 << 48) - 5])
def test_stage_1_refuses_what_it_cannot_load(lba: int) -> None:
    with pytest.raises(ValueError, match=r"expected .* found"):
        emit_stage1(lba)


@pytest.mark.parametrize(
    ("lba", "sectors", "body"),
    [
        (4096, (STAGING_LIMIT - STAGING_BASE) // 512 + 1, 4096),
        (4096, 0, 4096),
        (0, 10, 4096),
        (4096, 10, 0),
        (4096, 10, 4097),
        (4096, 10, BODY_LIMIT - BODY_BASE + 1024),
    ],
)
def test_stage_2_refuses_what_it_cannot_load(lba: int, sectors: int, body: int) -> None:
    with pytest.raises(ValueError, match=r"expected .* found"):
        emit_stage2(lba, sectors, 98, body)

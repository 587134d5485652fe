"""The host's Open DICE derivation gives the specification's published values, and ours follow docs/formats.md."""

from __future__ import annotations

import pytest

from pipeline import chain

pytestmark = pytest.mark.t0


def test_all_zero_input_gives_the_published_values() -> None:
    """CDIs and identifiers of the specification's all-zero vector."""
    zero = chain.Inputs(bytes(64), bytes(64), bytes(64), 0)
    cdi = chain.derive(chain.Cdi(bytes(32), bytes(32)), zero)
    assert cdi.attest.hex()[:8] == "fbfc6797"
    assert cdi.attest.hex()[-8:] == "319e0c19"
    assert cdi.seal.hex()[:8] == "8ff8b225"
    assert cdi.seal.hex()[-8:] == "ef49bdc5"
    device = chain.key_of(bytes(32)).public_key().public_bytes_raw()
    layer = chain.key_of(cdi.attest).public_key().public_bytes_raw()
    assert chain.open_dice_identifier(device).hex() == "7a06eee41b789f4863d86b8778b1a201a6fedd56"
    assert chain.open_dice_identifier(layer).hex() == "67c22a8859062b986818e8e72b0bcd9f59349c89"


def test_every_input_changes_the_secrets() -> None:
    """Code and configuration change the attestation secret alone; authority, mode and hidden both."""
    parent = chain.Cdi(bytes(32), bytes(32))
    plain = chain.Inputs(bytes(64), bytes(64), bytes(64), 2)
    other = b"\1" * 64
    base = chain.derive(parent, plain)
    for changed in (chain.Inputs(other, bytes(64), bytes(64), 2), chain.Inputs(bytes(64), other, bytes(64), 2)):
        found = chain.derive(parent, changed)
        assert found.attest != base.attest
        assert found.seal == base.seal
    for changed in (
        chain.Inputs(bytes(64), bytes(64), other, 2),
        chain.Inputs(bytes(64), bytes(64), bytes(64), 1),
        chain.Inputs(bytes(64), bytes(64), bytes(64), 2, other),
    ):
        found = chain.derive(parent, changed)
        assert found.attest != base.attest
        assert found.seal != base.seal


def test_an_identifier_never_begins_with_zero() -> None:
    """Of many keys some have a zero first byte by the specification; ours makes it 1 and changes nothing else."""
    keys = [index.to_bytes(32, "big") for index in range(600)]
    raw = [chain.open_dice_identifier(key) for key in keys]
    ours = [chain.identifier(key) for key in keys]
    assert any(value[0] == 0 for value in raw)
    assert all(0 < value[0] < 0x80 for value in ours)
    assert all(a[1:] == b[1:] and (a[0] == b[0] or a[0] == 0) for a, b in zip(raw, ours, strict=True))


def test_the_configuration_descriptor_is_as_documented() -> None:
    """68 bytes, the fields at the places that the machine's template has them."""
    found = chain.configuration("debian", 7, 9)
    assert len(found) == chain.CONFIGURATION_SIZE
    assert found[8:40] == b"debian".ljust(32, b"\0")
    assert found[46:54] == (7).to_bytes(8, "big")
    assert found[60:68] == (9).to_bytes(8, "big")
    with pytest.raises(ValueError, match="at most 32 bytes, found 33"):
        chain.configuration("x" * 33, 1, 0)


def test_posture_in_words() -> None:
    """Known bits by name, unknown ones by value."""
    assert chain.posture_text(9) == "debug, development secret"
    assert chain.posture_text(0) == "nothing said"
    assert chain.posture_text(0x103) == "debug, TPM, TPM ready"
    assert "0x4500" in chain.posture_text(0x4501)

"""The loader as DICE: from the device secret to the monitor's secrets and the two certificates that it needs (Open DICE v2.6)."""

from __future__ import annotations

from typing import Final

from boot.handoff import Handoff
from dsl.lang import Array, Secret, erase, frame_array, machine, static_array, text, u8, u32, u64
from dsl.std.dice import (
    MODE_DEBUG,
    MODE_NORMAL,
    MODE_NOT_CONFIGURED,
    POSTURE_DEBUG,
    POSTURE_DEVELOPMENT_SECRET,
    POSTURE_TPM,
    Cdi,
    LayerInputs,
    derive_key_pair,
    derive_layer,
    set_layer_inputs,
    write_configuration,
    write_device_certificate,
    write_layer_certificate,
)
from dsl.std.sha256 import sha256
from dsl.std.x509 import CONFIGURATION_SIZE, KeyPair

BINDING: Final = static_array(u8, 32)  # what a quote is about: this chain


@machine
def mode_of(posture: u64) -> u8:
    """The DICE mode of a posture: debug is what may be read, not configured what anybody can make."""
    if posture & (POSTURE_DEBUG | POSTURE_DEVELOPMENT_SECRET) != 0:
        return MODE_DEBUG if posture & (POSTURE_TPM | POSTURE_DEVELOPMENT_SECRET) != 0 else MODE_NOT_CONFIGURED
    return MODE_NORMAL if posture & POSTURE_TPM != 0 else MODE_NOT_CONFIGURED


@machine
def bind(device: KeyPair, monitor: KeyPair) -> None:
    """Set BINDING to the chain's hash: the label, the device's and the monitor's public key."""
    message = frame_array(u8, 80)
    message.slice(0, 16).copy_from(text("terrane-chain-v1"))
    message.slice(16, 32).copy_from(device.public_key)
    message.slice(48, 32).copy_from(monitor.public_key)
    sha256(BINDING, message)


@machine
def derive_monitor(handoff: Handoff, secret: Array[Secret[u8]], row: Array[u8], security_version: u64) -> None:
    """Write the monitor's CDIs, the device's and the monitor's certificate into the handoff, whose signer_key and posture are set.

    `row` is the monitor's signed entry row. Whatever is secret here but the monitor's CDIs is erased before it returns.
    """
    device = KeyPair()
    derive_key_pair(device, secret)
    size = write_device_certificate(handoff.device_certificate.content, device)
    handoff.device_certificate.size = size.truncate(u32)

    mode = mode_of(handoff.posture)
    handoff.mode = u32(mode)
    descriptor = frame_array(u8, CONFIGURATION_SIZE)
    write_configuration(descriptor, text("terrane monitor"), security_version, handoff.posture)
    inputs = LayerInputs()
    set_layer_inputs(inputs, row, descriptor, handoff.signer_key, mode)
    parent = Cdi()
    parent.attest.copy_from(secret)
    parent.seal.copy_from(secret)
    derive_layer(handoff.cdi, parent, inputs)
    erase(parent)

    monitor = KeyPair()
    derive_key_pair(monitor, handoff.cdi.attest)
    size = write_layer_certificate(handoff.monitor_certificate.content, device, monitor, inputs, descriptor)
    handoff.monitor_certificate.size = size.truncate(u32)
    bind(device, monitor)
    erase(device)
    erase(monitor)

"""The loader as DICE: from the device secret to the monitor's secrets and the two certificates that it needs (Open DICE v2.6).

Without a TPM the secret is the development secret of the image: the chain then proves the flow, not a machine, and says so by its mode.
"""

from __future__ import annotations

from boot.handoff import FLAG_DEBUG, FLAG_DEVELOPMENT_SECRET, Handoff
from dsl.lang import Array, Secret, erase, frame_array, machine, text, u8, u32, u64
from dsl.std.dice import (
    MODE_DEBUG,
    POSTURE_DEBUG,
    POSTURE_DEVELOPMENT_SECRET,
    Cdi,
    LayerInputs,
    derive_key_pair,
    derive_layer,
    set_layer_inputs,
    write_configuration,
    write_device_certificate,
    write_layer_certificate,
)
from dsl.std.x509 import CONFIGURATION_SIZE, KeyPair


@machine
def derive_monitor(handoff: Handoff, secret: Array[Secret[u8]], row: Array[u8], security_version: u64) -> None:
    """Write the monitor's CDIs, the device's and the monitor's certificate into the handoff, whose signer_key is set.

    `row` is the monitor's signed entry row. Whatever is secret here but the monitor's CDIs is erased before it returns.
    """
    device = KeyPair()
    derive_key_pair(device, secret)
    size = write_device_certificate(handoff.device_certificate.content, device)
    handoff.device_certificate.size = size.truncate(u32)

    descriptor = frame_array(u8, CONFIGURATION_SIZE)
    write_configuration(
        descriptor, text("terrane monitor"), security_version, POSTURE_DEBUG | POSTURE_DEVELOPMENT_SECRET
    )
    inputs = LayerInputs()
    set_layer_inputs(inputs, row, descriptor, handoff.signer_key, MODE_DEBUG)
    parent = Cdi()
    parent.attest.copy_from(secret)
    parent.seal.copy_from(secret)
    derive_layer(handoff.cdi, parent, inputs)
    erase(parent)

    monitor = KeyPair()
    derive_key_pair(monitor, handoff.cdi.attest)
    size = write_layer_certificate(handoff.monitor_certificate.content, device, monitor, inputs, descriptor)
    handoff.monitor_certificate.size = size.truncate(u32)
    handoff.mode = u32(MODE_DEBUG)
    handoff.flags = u64(FLAG_DEBUG | FLAG_DEVELOPMENT_SECRET)
    erase(device)
    erase(monitor)

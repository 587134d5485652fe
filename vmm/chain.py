"""The run-time chain, from the monitor down: the monitor's secrets, taken over from the loader, and each box's key and certificate."""

from __future__ import annotations

from typing import Final

from boot.handoff import Certificate as HandoffCertificate
from boot.handoff import Handoff, LoadedEntry
from dsl.lang import Array, Struct, array, erase, frame_array, machine, static, u8, u32, u64
from dsl.std.dice import (
    Cdi,
    LayerInputs,
    derive_key_pair,
    derive_layer,
    set_layer_inputs,
    write_configuration,
    write_layer_certificate,
)
from dsl.std.x509 import CONFIGURATION_SIZE, KeyPair
from vmm.abi import Certificate
from vmm.box import Box

ROW_VERSION_OFFSET: Final = 4  # of the security version in a signed entry row


class MonitorIdentity(Struct):
    """The monitor's own layer. Its secrets stay here for its lifetime, out of every box's reach."""

    cdi: Cdi
    keys: KeyPair
    signer_key: Array[u8] = array(32)
    mode: u32
    posture: u64
    device: Certificate
    monitor: Certificate


IDENTITY: Final = static(MonitorIdentity)


@machine
def copy_certificate(target: Certificate, source: HandoffCertificate) -> None:
    """Copy a certificate out of the handoff."""
    target.size = source.size
    target.bytes.copy_from(source.content)


@machine
def take_over_identity(handoff: Handoff) -> None:
    """Move the monitor's secrets out of the handoff, erase them there, and derive the monitor's key."""
    IDENTITY.cdi.copy_from(handoff.cdi)
    erase(handoff.cdi)
    IDENTITY.signer_key.copy_from(handoff.signer_key)
    IDENTITY.mode = handoff.mode
    IDENTITY.posture = handoff.posture
    copy_certificate(IDENTITY.device, handoff.device_certificate)
    copy_certificate(IDENTITY.monitor, handoff.monitor_certificate)
    derive_key_pair(IDENTITY.keys, IDENTITY.cdi.attest)


@machine
def forget_identity() -> None:
    """Erase the monitor's secrets: nothing runs any more."""
    erase(IDENTITY.cdi)
    erase(IDENTITY.keys)


@machine
def certify_box(box: Box, entry: LoadedEntry) -> None:
    """Derive a box's secrets and key from what its signed row says, and certify the key with the monitor's."""
    configuration = frame_array(u8, CONFIGURATION_SIZE)
    version = u64(entry.row.load_u32(u64(ROW_VERSION_OFFSET)))
    write_configuration(configuration, box.label, version, IDENTITY.posture)
    inputs = LayerInputs()
    mode = IDENTITY.mode.truncate(u8)
    set_layer_inputs(inputs, entry.row, configuration, IDENTITY.signer_key, mode)
    child = Cdi()
    derive_layer(child, IDENTITY.cdi, inputs)
    derive_key_pair(box.keys, child.attest)
    erase(child)
    size = write_layer_certificate(box.certificate.bytes, IDENTITY.keys, box.keys, inputs, configuration)
    box.certificate.size = size.truncate(u32)

"""All that the loader does with a TPM, as one function for the emulator; the rest of a boot is left out."""

from __future__ import annotations

from typing import Final

from boot.approvals import ApprovalTable
from boot.device import BINDING
from boot.entries import APPROVALS
from boot.handoff import Handoff
from boot.header import ImageHeader
from boot.parameters import BootParameters
from boot.secret import choose_secret
from boot.tpm import begin_measuring, end_measuring, measure_entry, measure_header, quote_chain
from dsl.lang import HostVirtual, machine, u8, u64, upto

BOUND: Final = u8(0x5A)  # what the quote is about


@machine
def use_tpm(handoff: HostVirtual, header: HostVirtual, parameters: HostVirtual, approvals: HostVirtual) -> u64:
    """Measure, choose the secret, quote; the state is in the handoff, the secret in boot.entries.SECRET."""
    # Safe because the test maps all four.
    block = Handoff.at(handoff)
    image = ImageHeader.at(header)
    APPROVALS.copy_from(ApprovalTable.at(approvals))
    begin_measuring(block, BootParameters.at(parameters))
    measure_header(block, image)
    for row in upto(u64(image.entry_count)):
        measure_entry(block, image.entries[row])
    choose_secret(block, image)
    BINDING.fill(BOUND)
    end_measuring(block)
    quote_chain(block)
    return u64(block.tpm_state)

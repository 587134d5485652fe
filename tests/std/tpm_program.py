"""A program that holds each of the TPM's drivers by itself, and what they share once, as programs that use several of them do."""

from __future__ import annotations

from dsl.lang import Array, HostVirtual, function_address, machine
from dsl.std import event_log, tpm, tpm_command, tpm_policy


@machine
def hold_all(places: Array[HostVirtual]) -> None:
    """Name them, so that each stays a function: tests call them by their symbols."""
    places[0] = function_address(tpm_command.tpm_start)
    places[1] = function_address(tpm_command.transmit)
    places[2] = function_address(tpm_command.read_permanent)
    places[3] = function_address(tpm_command.active_banks)
    places[4] = function_address(tpm_command.read_pcr)
    places[5] = function_address(tpm_command.extend_event)
    places[6] = function_address(tpm_command.read_public)
    places[7] = function_address(tpm_command.read_index)
    places[8] = function_address(tpm_command.lock_index)
    places[9] = function_address(tpm_command.flush)
    places[10] = function_address(tpm_command.ask_quote)
    places[11] = function_address(tpm_policy.start_policy)
    places[12] = function_address(tpm_policy.policy_pcr)
    places[13] = function_address(tpm_policy.policy_at_most)
    places[14] = function_address(tpm_policy.policy_digest)
    places[15] = function_address(tpm_policy.load_key)
    places[16] = function_address(tpm_policy.verify_signature)
    places[17] = function_address(tpm_policy.approve)
    places[18] = function_address(event_log.log_begin)
    places[19] = function_address(event_log.log_event)
    places[20] = function_address(event_log.log_take)
    places[21] = function_address(event_log.log_take_all)
    places[22] = function_address(event_log.has_bank)
    places[23] = function_address(tpm.take_u8)
    places[24] = function_address(tpm.take_u16)
    places[25] = function_address(tpm.take_u32)
    places[26] = function_address(tpm.take_bytes)
    places[27] = function_address(tpm.taken)
    places[28] = function_address(tpm_command.check_answer)

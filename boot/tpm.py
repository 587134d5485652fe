"""The TPM in the loader: found, looked at, its event log continued, the image measured, the chain quoted (docs/evidence.md).

Whatever it does, the loader goes on and says what became of it: `handoff.tpm_state` enters every certificate of this boot.
"""

from __future__ import annotations

from typing import Final

from boot.device import BINDING
from boot.handoff import TPM_OWNER_MONITOR, Handoff, TpmState
from boot.header import Entry, EntryKind, ImageHeader
from boot.memory_map import map_holds
from boot.output import begin_line, put_line
from boot.parameters import MEASUREMENT_ROWS, MEASUREMENT_SIZE, MEASUREMENTS, BootParameters
from boot.places import REMAINING, allocate
from boot.refusal import Rule
from dsl.hw.tpm import (
    EVENT_IPL,
    EVENT_TAG,
    GENERATED,
    IN_LOCKOUT,
    SESSIONS,
    SHA256,
    START_CRB,
    START_FIFO,
    AcpiTpm2,
)
from dsl.hw.x86 import PAGE_SIZE
from dsl.lang import (
    Array,
    Failure,
    HostPhysical,
    HostVirtual,
    address_of,
    array_at,
    byte_swap,
    frame_array,
    machine,
    minimum,
    offset_of,
    size_of,
    static,
    table,
    text,
    u8,
    u16,
    u32,
    u64,
    upto,
)
from dsl.std.acpi import find_table
from dsl.std.event_log import LOG_CAPACITY, EventLog, log_begin, log_event, log_memory, log_take_all
from dsl.std.print import append_hexadecimal, append_padded_text
from dsl.std.sha256 import sha256
from dsl.std.tpm import CRB, FIFO, HEAD_SIZE, TPM, TpmFault, take_bytes, take_sized
from dsl.std.tpm_command import (
    BANKS_LIMIT,
    active_banks,
    ask_quote,
    check_answer,
    extend_event,
    read_pcr,
    read_permanent,
    tpm_start,
)

FIFO_BASE: Final = 0xFED40000  # locality 0, where the ACPI table does not say (PTP 6.5.2)
FOUR_GIGABYTES: Final = 1 << 32
TPM2: Final = u32(int.from_bytes(b"TPM2", "little"))
FIRMWARE_PCRS: Final = 8  # PCR 0 to 7 are firmware's: it has measured into each of them
ATTESTATION_KEY: Final = u32(0x81005400)
QUOTED: Final = u32(0xFFFF)  # PCR 0 to 15
PCR_LOADER: Final = u32(4)
PCR_CONFIGURATION: Final = u32(8)
PCR_IMAGES: Final = u32(9)
TAG_HEADER: Final = u32(0x54520001)
TAG_CONFIGURATION: Final = u32(0x54520002)
TAG_IMAGE: Final = u32(0x54520003)
TAG_END: Final = u32(0x54520004)
TAGGED_LIMIT: Final = 72
STATE_SIZE: Final = 104
STATES: Final = {
    TpmState.ABSENT: "loader: TPM: none",
    TpmState.READY: "loader: TPM: the device secret was read, and is locked until reset",
    TpmState.UNPROVISIONED: "loader: TPM: not provisioned: it holds no device secret; error ",
    TpmState.PCRS: "loader: TPM: one of PCR 0 to 7 is all zeros or all ones: firmware measured nothing; error ",
    TpmState.LOCKED_OUT: "loader: TPM: locked out after wrong authorizations; error ",
    TpmState.BROKEN: "loader: TPM: broken: not the answers of a TPM; error ",
    TpmState.WITHHELD: "loader: TPM: it withholds the device secret: no approval for what was measured; error ",
    TpmState.UNSUPPORTED: "loader: TPM: not of a kind that the loader knows; start method or bank ",
}
STATE_ROWS: Final = table(u8, b"".join(STATES[state].encode().ljust(STATE_SIZE, b"\0") for state in TpmState))
LOG: Final = static(EventLog)


@machine
def close_policies(word: Array[u8]) -> None:
    """Where the TPM works: no policy over PCR 4 can be met from here on until reset. Not logged: no quote follows."""
    if TPM.interface != 0:
        _ = extend_event(PCR_LOADER, word)


@machine
def set_state(handoff: Handoff, state: TpmState, found: u64) -> None:
    """Note what became of the TPM, and say so; a broken or unknown one is not used any more, and keeps its secret."""
    handoff.tpm_state = state.value
    if state == TpmState.BROKEN or state == TpmState.UNSUPPORTED:
        close_policies(text("broken"))
        TPM.interface = u32(0)
    line = begin_line()
    append_padded_text(line, STATE_ROWS.slice(u64(state.value) * STATE_SIZE, STATE_SIZE))
    if state != TpmState.ABSENT and state != TpmState.READY:
        append_hexadecimal(line, found)
    put_line()


@machine
def is_device_memory(base: u64, size: u64) -> bool:
    """Whether all of it lies below 4 GiB and none of it in usable RAM, page by page."""
    if base == 0 or size > PAGE_SIZE * 16 or base > FOUR_GIGABYTES - PAGE_SIZE * 16:
        return False
    for page in upto(u64(17)):
        place = base + page * PAGE_SIZE
        if page * PAGE_SIZE < size and map_holds(REMAINING, place, place + 1) != 0:
            return False
    return size == 0 or map_holds(REMAINING, base + size - 1, base + size) == 0


@machine
def find_registers(rows: Array[u8]) -> u32:
    """Set TPM from the ACPI table; the start method, if there is no driver for it, or 0."""
    # Safe because the table is long enough for these fields.
    acpi = AcpiTpm2.at(address_of(rows))
    area = acpi.control_area
    if acpi.start_method == START_FIFO:
        TPM.interface = u32(FIFO)
        TPM.registers = HostVirtual(u64(FIFO_BASE) if area == 0 else area & ~u64(PAGE_SIZE - 1))
    elif acpi.start_method == START_CRB:
        TPM.interface = u32(CRB)
        TPM.registers = HostVirtual(area)
    return acpi.start_method if TPM.interface == 0 else u32(0)


@machine
def start_tpm(handoff: Handoff) -> Array[u8]:
    """Find the TPM and take its locality; the result is its ACPI table, empty if it cannot be used."""
    rows = find_table(u64(0), handoff.acpi_root, TPM2)
    nothing = rows.slice(0, 0)
    if rows.length < offset_of(AcpiTpm2, "parameters"):
        return nothing
    method = find_registers(rows)
    if method != 0:
        set_state(handoff, TpmState.UNSUPPORTED, u64(method))
        return nothing
    fault = check_registers()
    if isinstance(fault, Failure):
        TPM.interface = u32(0)
        set_state(handoff, TpmState.BROKEN, fault.code)
        return nothing
    return rows


@machine
def check_registers() -> Failure | None:
    """Check that registers, and buffers, are where a device can be; take the locality."""
    if not is_device_memory(TPM.registers.as_u64(), u64(PAGE_SIZE)):
        return Failure(TpmFault.BUFFERS.value)
    started = tpm_start()
    if isinstance(started, Failure):
        return started
    if TPM.interface == FIFO:
        return None
    command = is_device_memory(TPM.command_buffer.as_u64(), u64(TPM.command_room))
    if not command or not is_device_memory(TPM.answer_buffer.as_u64(), u64(TPM.answer_room)):
        return Failure(TpmFault.BUFFERS.value)
    return None


@machine
def has_content(value: Array[u8]) -> bool:
    """Whether a PCR's value is neither all zeros nor all ones."""
    first = value[0]
    if first != 0 and first != 0xFF:
        return True
    for index in upto(value.length):
        if value[index] != first:
            return True
    return False


@machine
def check_pcrs(handoff: Handoff) -> Failure | None:
    """Look whether firmware measured at all."""
    for number in upto(u32(FIRMWARE_PCRS)):
        value = read_pcr(number)
        if isinstance(value, Failure):
            return value
        if not has_content(value):
            set_state(handoff, TpmState.PCRS, u64(number))
            return None
    return None


@machine
def look_at_tpm(handoff: Handoff, banks: Array[u16]) -> u64 | Failure:
    """Lock-out, banks, PCRs; the number of banks."""
    permanent = read_permanent()
    if isinstance(permanent, Failure):
        return permanent
    if permanent & IN_LOCKOUT != 0:
        set_state(handoff, TpmState.LOCKED_OUT, u64(permanent))
    count = active_banks(banks)
    if isinstance(count, Failure):
        return count
    for index in upto(count, at_most=BANKS_LIMIT):
        if banks[index] == SHA256:
            looked = check_pcrs(handoff)
            if isinstance(looked, Failure):
                return looked
            return count
    set_state(handoff, TpmState.UNSUPPORTED, u64(SHA256))
    return count


@machine
def begin_measuring(handoff: Handoff, parameters: BootParameters) -> None:
    """Find the TPM, look at it, and take over the event log: firmware's, and what stages 1 and 2 measured."""
    rows = start_tpm(handoff)
    if rows.length == 0:
        return
    banks = frame_array(u16, BANKS_LIMIT)
    count = look_at_tpm(handoff, banks)
    if isinstance(count, Failure):
        set_state(handoff, TpmState.BROKEN, count.code)
        return
    LOG.base = HostVirtual(parameters.event_log)
    LOG.used = parameters.event_log_size
    if LOG.base == HostVirtual(0):
        LOG.base = allocate(u64(LOG_CAPACITY), u64(PAGE_SIZE), Rule.MEMORY_HANDOFF, u64(0))
        take_bios_log(rows)
    if LOG.used == 0:
        log_begin(LOG, banks.slice(0, count))
    log_stages(handoff, parameters)


@machine
def take_bios_log(rows: Array[u8]) -> None:
    """Begin with the log that the ACPI table names, if it names one."""
    if rows.length < size_of(AcpiTpm2):
        return
    acpi = AcpiTpm2.at(address_of(rows))  # Safe because the table is that long.
    size = minimum(u64(acpi.log_size), u64(LOG_CAPACITY // 2))
    if acpi.log != 0 and acpi.log < FOUR_GIGABYTES - LOG_CAPACITY:
        # Safe because it lies below 4 GiB, which is identity-mapped.
        log_take_all(LOG, array_at(u8, HostVirtual(acpi.log), size))


@machine
def log_stages(handoff: Handoff, parameters: BootParameters) -> None:
    """Log what stages 1 and 2 measured, by the answers that the TPM gave them."""
    pieces = minimum(parameters.measured & 0xFF, u32(MEASUREMENT_ROWS - 1))
    for row in upto(u64(pieces), at_most=MEASUREMENT_ROWS):
        log_stage(handoff, row, text("terrane stage 2"))
    if parameters.measured >> 8 == 1:
        log_stage(handoff, u64(MEASUREMENT_ROWS - 1), text("terrane loader"))


@machine
def log_stage(handoff: Handoff, row: u64, name: Array[u8]) -> None:
    """Log one of them: a BIOS's answer, which begins with its length and a reserved word (TCG PC Client BIOS 1.21, 12.3.3)."""
    # Safe because the answers lie there, in the first MiB, which is identity-mapped.
    answer = array_at(u8, HostVirtual(MEASUREMENTS) + row * MEASUREMENT_SIZE, u64(MEASUREMENT_SIZE))
    size = u64(answer.load_u16(0))
    if size < HEAD_SIZE + 4 or size > MEASUREMENT_SIZE:
        set_state(handoff, TpmState.BROKEN, u64(TpmFault.ANSWER_SIZE.value))
        return
    TPM.answer.slice(0, size - 4).copy_from(answer.slice(4, size - 4))
    TPM.command.store_u16(0, byte_swap(SESSIONS))
    TPM.malformed = False
    TPM.offset = u64(HEAD_SIZE)
    TPM.end = size - 4
    checked = check_answer()
    if not isinstance(checked, Failure):
        checked = log_event(LOG, PCR_LOADER, EVENT_IPL, name)
    if isinstance(checked, Failure):
        set_state(handoff, TpmState.BROKEN, checked.code)


@machine
def measure(handoff: Handoff, pcr: u32, tag: u32, data: Array[u8]) -> None:
    """Extend a PCR by a tagged event, and log it. A TPM that does not do it is broken."""
    if TPM.interface == 0:
        return
    event = frame_array(u8, TAGGED_LIMIT)
    event.store_u32(0, tag)
    event.store_u32(4, data.length.truncate(u32))
    event.slice(8, data.length).copy_from(data)
    whole = event.slice(0, data.length + 8)
    extended = extend_event(pcr, whole)
    if not isinstance(extended, Failure):
        extended = log_event(LOG, pcr, EVENT_TAG, whole)
    if isinstance(extended, Failure):
        set_state(handoff, TpmState.BROKEN, extended.code)


@machine
def measure_header(handoff: Handoff, header: ImageHeader) -> None:
    """Measure the signed header, all of it."""
    digest = frame_array(u8, 32)
    # Safe because the view is the header itself.
    sha256(digest, array_at(u8, address_of(header), u64(size_of(ImageHeader))))
    measure(handoff, PCR_CONFIGURATION, TAG_HEADER, digest)


@machine
def measure_entry(handoff: Handoff, entry: Entry) -> None:
    """Measure an entry by its signed row, whose hash was compared with the bytes."""
    row = array_at(u8, address_of(entry), u64(size_of(Entry)))  # Safe because an Entry is exactly these bytes.
    kind = entry.kind
    image = kind == EntryKind.MONITOR.value or kind == EntryKind.SEGMENT.value or kind == EntryKind.RELEASE_CHAIN.value
    if image:
        measure(handoff, PCR_IMAGES, TAG_IMAGE, row)
    else:
        measure(handoff, PCR_CONFIGURATION, TAG_CONFIGURATION, row)


@machine
def end_measuring(handoff: Handoff) -> None:
    """After the device secret was read or not: no policy over PCR 4 can be met from here on until reset. The event seals the log so far."""
    digest = frame_array(u8, 32)
    if TPM.interface != 0:
        sha256(digest, log_memory(LOG).slice(0, LOG.used))
    measure(handoff, PCR_LOADER, TAG_END, digest)


@machine
def is_attest(data: Array[u8]) -> bool:
    """Whether a TPM made this of its own state (TPM 2.0 Library, part 2, 10.12.8), so that no other answer is handed on as a quote."""
    return data.length >= 4 and data.load_be32(0) == GENERATED


@machine
def quote_chain(handoff: Handoff) -> None:
    """Have the attestation key, if there is one, quote the PCRs for this chain; hand TPM and log over."""
    if TPM.interface == 0:
        return
    asked = ask_quote(ATTESTATION_KEY, BINDING, QUOTED)
    if not isinstance(asked, Failure):
        attest = take_sized()
        signature = take_bytes(TPM.end - TPM.offset)
        quote = handoff.quote
        fits = attest.length <= quote.attest.length and signature.length <= quote.signature.length
        if not TPM.malformed and fits and is_attest(attest):
            quote.attest_size = attest.length.truncate(u32)
            quote.attest.slice(0, attest.length).copy_from(attest)
            quote.signature_size = signature.length.truncate(u32)
            quote.signature.slice(0, signature.length).copy_from(signature)
    handoff.tpm_owner = u32(TPM_OWNER_MONITOR)
    handoff.tpm_interface = TPM.interface
    handoff.tpm_registers = HostPhysical(TPM.registers.as_u64())
    handoff.event_log = HostPhysical(LOG.base.as_u64())
    handoff.event_log_size = LOG.used

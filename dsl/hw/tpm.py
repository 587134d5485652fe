"""TPM 2.0: registers (TCG PC Client Platform TPM Profile 1.05, PTP), commands and their numbers (TPM 2.0 Library 1.59, parts 2 and 3).

Inside commands and answers all integers are big-endian; registers and the event log are little-endian.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import Array, Device, Struct, array, at, u8, u16, u32, u64

# What to wait for at most, milliseconds (PTP 6.5.1.3, table 16; the duration of the longest command used here, with room)
TIMEOUT_A: Final = 750  # a locality
TIMEOUT_B: Final = 2000  # ready for a command
TIMEOUT_C: Final = 200  # CRB: a request taken
TIMEOUT_D: Final = 200  # a burst count: the standard says 30; some parts want more
DURATION: Final = 8000

# FIFO registers' bits (PTP 6.5.2)
ACCESS_VALID: Final = 1 << 7
ACCESS_ACTIVE: Final = 1 << 5
ACCESS_REQUEST: Final = 1 << 1
STATUS_VALID: Final = 1 << 7
STATUS_READY: Final = 1 << 6
STATUS_GO: Final = 1 << 5
STATUS_DATA: Final = 1 << 4
STATUS_EXPECT: Final = 1 << 3
BURST_SHIFT: Final = 8
BURST_MASK: Final = 0xFFFF

# CRB registers' bits (PTP 6.5.3)
LOCALITY_REQUEST: Final = 1 << 0  # in control
LOCALITY_GRANTED: Final = 1 << 0  # in status
CRB_READY: Final = 1 << 0  # in request
CRB_IDLE: Final = 1 << 1  # in request
CRB_FAILED: Final = 1 << 0  # in status
CRB_START: Final = 1 << 0
CRB_CANCEL: Final = 1 << 0
CRB_HEAD_SIZE: Final = 0x40  # of the locality's registers before the control area, where they are


class FifoRegisters(Struct, size=4096):
    """One locality of a FIFO interface."""

    access: Device[u8] = at(0)
    status: Device[u32] = at(0x18)
    data: Device[u8] = at(0x24)
    identity: Device[u32] = at(0xF00)  # vendor and device; never all zeros or all ones


class CrbLocality(Struct, size=64):
    """The registers before a control area that lies in a locality's page."""

    control: Device[u32] = at(8)
    status: Device[u32] = at(12)


class CrbRegisters(Struct, size=64):
    """The control area of a command-response buffer."""

    request: Device[u32] = at(0)
    status: Device[u32] = at(4)
    cancel: Device[u32] = at(8)
    start: Device[u32] = at(12)
    command_size: Device[u32] = at(0x18)
    command_low: Device[u32] = at(0x1C)
    command_high: Device[u32] = at(0x20)
    answer_size: Device[u32] = at(0x24)
    answer_low: Device[u32] = at(0x28)
    answer_high: Device[u32] = at(0x2C)


class DeviceByte(Struct, size=1):
    """A byte of a buffer that the device reads or writes."""

    value: Device[u8]


# Structure tags (part 2, 6.9)
NO_SESSIONS: Final = u16(0x8001)
SESSIONS: Final = u16(0x8002)

GENERATED: Final = u32(0xFF544347)  # what a structure that the TPM made of its own state begins with (part 2, 6.2)

# Commands (part 2, 6.5.2)
NV_READ_LOCK: Final = u32(0x14F)
NV_READ: Final = u32(0x14E)
POLICY_NV: Final = u32(0x149)
QUOTE: Final = u32(0x158)
FLUSH_CONTEXT: Final = u32(0x165)
LOAD_EXTERNAL: Final = u32(0x167)
NV_READ_PUBLIC: Final = u32(0x169)
POLICY_AUTHORIZE: Final = u32(0x16A)
START_SESSION: Final = u32(0x176)
VERIFY_SIGNATURE: Final = u32(0x177)
GET_CAPABILITY: Final = u32(0x17A)
PCR_READ: Final = u32(0x17E)
POLICY_PCR: Final = u32(0x17F)
POLICY_GET_DIGEST: Final = u32(0x189)
PCR_EVENT: Final = u32(0x13C)

# Response codes (part 2, 6.6)
RETRY: Final = u32(0x922)
YIELDED: Final = u32(0x908)
TESTING: Final = u32(0x90A)
LOCKOUT: Final = u32(0x921)
HANDLE_MISSING: Final = u32(
    0x18B
)  # TPM_RC_HANDLE of handle 1: an index that is not defined, an object that is not there

# Handles (part 2, 7.4)
OWNER: Final = u32(0x40000001)
NULL_HANDLE: Final = u32(0x40000007)
PASSWORD: Final = u32(0x40000009)

# Algorithms (TCG Algorithm Registry)
SHA1: Final = u16(4)
SHA256: Final = u16(0x0B)
SHA384: Final = u16(0x0C)
SHA512: Final = u16(0x0D)
NULL_ALGORITHM: Final = u16(0x10)
SM3: Final = u16(0x12)
ECDSA: Final = u16(0x18)
DIGEST_SIZES: Final = ((SHA1, 20), (SHA256, 32), (SHA384, 48), (SHA512, 64), (SM3, 32))
DIGEST_LIMIT: Final = 64

POLICY_SESSION: Final = u8(1)
UNSIGNED_AT_MOST: Final = u16(9)  # TPM_EO_UNSIGNED_LE
CAPABILITY_PCRS: Final = u32(5)
CAPABILITY_PROPERTIES: Final = u32(6)
PROPERTY_PERMANENT: Final = u32(0x200)
IN_LOCKOUT: Final = 1 << 9  # of TPMA_PERMANENT
PCR_BYTES: Final = 3  # of a selection's bit map: 24 PCRs

# The ACPI table "TPM2" (TCG ACPI Specification 1.3, 8.3)
START_FIFO: Final = 6
START_CRB: Final = 7


class AcpiTpm2(Struct, size=76, packed=True):
    """The table. The log's fields are there only where its length, in the header, says so."""

    header: Array[u8] = array(36)
    platform_class: u16
    reserved: u16
    control_area: u64
    start_method: u32
    parameters: Array[u8] = array(12)
    log_size: u32
    log: u64


# Event log (PFP 10)
EVENT_NO_ACTION: Final = u32(3)
EVENT_TAG: Final = u32(6)
EVENT_IPL: Final = u32(0xD)

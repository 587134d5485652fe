"""A monitor that runs no box: it says what this machine has, as far as Terrane asks for it, and stops. `build.py build --selftest`."""

from __future__ import annotations

from typing import Final

from boot.handoff import DIRECT_MAP, FREE_MEMORY, Handoff, TpmState
from dsl.hw.vmx import (
    IA32_VMX_BASIC,
    IA32_VMX_EPT_VPID_CAP,
    IA32_VMX_PROCBASED_CTLS,
    IA32_VMX_PROCBASED_CTLS2,
    EptVpidCapability,
)
from dsl.hw.x86 import (
    CPUID_7_EBX_ADX,
    CPUID_7_EBX_SHA,
    CPUID_ECX_AESNI,
    CPUID_ECX_RDRAND,
    CPUID_ECX_TSC_DEADLINE,
    CPUID_ECX_VMX,
    CPUID_ECX_X2APIC,
    CPUID_FEATURES,
    CPUID_STRUCTURED_FEATURES,
    CPUID_VENDOR,
)
from dsl.lang import Array, Failure, HostPhysical, asm, frame_array, function_address, machine, text, u8, u32, u64, upto
from dsl.lang.intrinsics import cpuid, rdmsr
from dsl.std.acpi import find_table
from vmm.address_space import take_over_address_space
from vmm.apic import silence_pic
from vmm.console import console_decimal, console_hex, console_initialize, console_line, console_newline, console_text
from vmm.cpu import BOOT_CPU, MAIN_STACK, MAIN_STACK_SIZE, initialize_cpu
from vmm.interrupts import halt_machine, interrupt_stubs
from vmm.main import is_handoff_good
from vmm.screen import screen_initialize
from vmm.vmx.capability import check_capabilities

DMAR: Final = u32(int.from_bytes(b"DMAR", "little"))  # Intel VT for Directed I/O
IVRS: Final = u32(int.from_bytes(b"IVRS", "little"))  # AMD-Vi
BRAND_FIRST: Final = 0x80000002  # three leaves of 16 characters
BRAND_LAST: Final = 0x80000004
EXTENDED_LIMIT: Final = 0x80000000
ADDRESS_SIZES: Final = 0x80000008
SECONDARY_EPT: Final = 33  # bits of the high half of IA32_VMX_PROCBASED_CTLS2: what may be 1
SECONDARY_VPID: Final = 37
SECONDARY_UNRESTRICTED: Final = 39


@machine(naked=True)
def start() -> None:
    """Entry: rdi is the handoff's address in the direct map. Safe because nothing is on the old stack that is wanted."""
    asm(
        """
        lea rsp, [rip + {stack}]
        add rsp, {stack_size}
        xor ebp, ebp
        call {main}
        ud2
        """,
        stack=MAIN_STACK,
        stack_size=MAIN_STACK_SIZE,
        main=main,
    )


@machine
def main(handoff: Handoff) -> None:
    """Say everything, then whether boxes could run. Never returns."""
    silence_pic()
    console_initialize()
    initialize_cpu(BOOT_CPU, u32(0), function_address(interrupt_stubs))
    if not is_handoff_good(handoff):
        console_line(text("refused: the loader's handoff is of another version"))
        halt_machine()
    take_over_address_space()
    screen_initialize(handoff)
    say_processor()
    say_virtualization()
    say_memory(handoff)
    say_devices(handoff)
    checked = check_capabilities()  # a failure has said which check it was
    if isinstance(checked, Failure):
        console_line(text("selftest: this machine cannot run boxes"))
    else:
        console_line(text("selftest: this machine can run boxes"))
    halt_machine()


@machine
def say(what: Array[u8], present: bool) -> None:
    """One line: a name, and whether it is there."""
    console_text(text("selftest: "))
    console_text(what)
    if present:
        console_line(text(" yes"))
    else:
        console_line(text(" no"))


@machine
def store_words(name: Array[u8], offset: u64, first: u32, second: u32, third: u32) -> None:
    """Three registers of text."""
    name.store_u32(offset, first)
    name.store_u32(offset + 4, second)
    name.store_u32(offset + 8, third)


@machine
def say_processor() -> None:
    """Vendor, brand, signature, and the instructions that Terrane uses where it can."""
    name = frame_array(u8, 48)
    vendor = cpuid(u32(CPUID_VENDOR), u32(0))
    store_words(name, u64(0), vendor.ebx, vendor.edx, vendor.ecx)
    console_text(text("selftest: processor "))
    console_text(name.slice(0, 12))
    if cpuid(u32(EXTENDED_LIMIT), u32(0)).eax >= BRAND_LAST:
        for index in upto(u64(3)):
            words = cpuid(u32(BRAND_FIRST) + index.truncate(u32), u32(0))
            store_words(name, index * 16, words.eax, words.ebx, words.ecx)
            name.store_u32(index * 16 + 12, words.edx)
        console_text(text(", "))
        length = u64(0)
        while length < 48 and name[length] != 0:
            length += 1
        console_text(name.slice(0, length))
    features = cpuid(u32(CPUID_FEATURES), u32(0))
    console_text(text(", signature "))
    console_hex(u64(features.eax))
    console_newline()
    if cpuid(u32(EXTENDED_LIMIT), u32(0)).eax >= ADDRESS_SIZES:
        console_text(text("selftest: physical address bits "))
        console_decimal(u64(cpuid(u32(ADDRESS_SIZES), u32(0)).eax & 255))
        console_newline()
    structured = cpuid(u32(CPUID_STRUCTURED_FEATURES), u32(0))
    say(text("x2APIC"), features.ecx & CPUID_ECX_X2APIC != 0)
    say(text("TSC-deadline timer"), features.ecx & CPUID_ECX_TSC_DEADLINE != 0)
    say(text("RDRAND"), features.ecx & CPUID_ECX_RDRAND != 0)
    say(text("AES-NI"), features.ecx & CPUID_ECX_AESNI != 0)
    say(text("SHA extensions"), structured.ebx & CPUID_7_EBX_SHA != 0)
    say(text("ADX"), structured.ebx & CPUID_7_EBX_ADX != 0)


@machine
def say_virtualization() -> None:
    """VT-x and what of it Terrane asks for."""
    has_vmx = cpuid(u32(CPUID_FEATURES), u32(0)).ecx & CPUID_ECX_VMX != 0
    say(text("VT-x"), has_vmx)
    if not has_vmx:
        return
    console_text(text("selftest: IA32_VMX_BASIC "))
    console_hex(rdmsr(u32(IA32_VMX_BASIC)))
    console_newline()
    if rdmsr(u32(IA32_VMX_PROCBASED_CTLS)) >> 63 == 0:
        say(text("secondary controls"), False)
        return
    secondary = rdmsr(u32(IA32_VMX_PROCBASED_CTLS2))
    has_ept = (secondary >> SECONDARY_EPT) & 1 != 0
    say(text("EPT"), has_ept)
    say(text("unrestricted guest"), (secondary >> SECONDARY_UNRESTRICTED) & 1 != 0)
    say(text("VPID"), (secondary >> SECONDARY_VPID) & 1 != 0)
    if has_ept:
        found = EptVpidCapability.from_raw(rdmsr(u32(IA32_VMX_EPT_VPID_CAP)))
        say(text("EPT pages of 2 MiB"), found.leaf_2_mib)
        say(text("EPT pages of 1 GiB"), found.leaf_1_gib)
        say(text("EPT accessed and dirty flags"), found.accessed_and_dirty)


@machine
def say_memory(handoff: Handoff) -> None:
    """RAM that boxes could have."""
    total = u64(0)
    for index in upto(u64(handoff.range_count)):
        if handoff.ranges[index].kind == FREE_MEMORY:
            total += handoff.ranges[index].size
    console_text(text("selftest: free memory "))
    console_decimal(total >> 20)
    console_line(text(" MiB"))


@machine
def say_devices(handoff: Handoff) -> None:
    """TPM, IOMMU, screen."""
    console_text(text("selftest: TPM "))
    console_text(tpm_word(handoff.tpm_state))
    console_newline()
    if find_table(u64(DIRECT_MAP), handoff.acpi_root, DMAR).length != 0:
        console_line(text("selftest: IOMMU yes, VT-d (ACPI table DMAR)"))
    elif find_table(u64(DIRECT_MAP), handoff.acpi_root, IVRS).length != 0:
        console_line(text("selftest: IOMMU yes, AMD-Vi (ACPI table IVRS)"))
    else:
        say(text("IOMMU"), False)
    if handoff.framebuffer == HostPhysical(0):
        say(text("framebuffer"), False)
        return
    console_text(text("selftest: framebuffer "))
    console_decimal(u64(handoff.framebuffer_width))
    console_text(text(" x "))
    console_decimal(u64(handoff.framebuffer_height))
    console_text(text(" at "))
    console_hex(handoff.framebuffer.as_u64())
    console_newline()


@machine
def tpm_word(state: u32) -> Array[u8]:
    """What became of the TPM, in a word or two (docs/evidence.md, "Postures and modes")."""
    if state == TpmState.READY.value:
        return text("ready")
    if state == TpmState.UNPROVISIONED.value:
        return text("found, not provisioned")
    if state == TpmState.PCRS.value:
        return text("found, but firmware did not measure")
    if state == TpmState.LOCKED_OUT.value:
        return text("locked out")
    if state == TpmState.BROKEN.value:
        return text("broken: the loader said how")
    if state == TpmState.WITHHELD.value:
        return text("provisioned, secret withheld")
    if state == TpmState.UNSUPPORTED.value:
        return text("of a kind that the loader does not know")
    return text("no")

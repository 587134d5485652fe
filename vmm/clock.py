"""Time: the TSC's frequency, measured against the PIT's channel 2 (Intel 8254), and conversions between TSC ticks and nanoseconds."""

from __future__ import annotations

from typing import Final

from dsl.lang import Failure, Struct, machine, multiply_wide, static, u8, u16, u32, u64
from dsl.lang.intrinsics import in8, out8, rdtsc

PIT_HZ: Final = 1_193_182
PIT_CHANNEL_2: Final = 0x42
PIT_COMMAND: Final = 0x43
PIT_MODE_0_CHANNEL_2: Final = 0xB0  # low byte, then high byte; the output rises when the count ends
SYSTEM_CONTROL: Final = 0x61
GATE: Final = 0x01  # of channel 2
SPEAKER: Final = 0x02
OUTPUT: Final = 0x20
CALIBRATION_COUNT: Final = 11_932  # PIT ticks: 10 ms
WAIT_LIMIT: Final = 100_000_000  # looks at the output before the PIT is declared dead
NANOSECONDS: Final = 1_000_000_000
SLOWEST_HZ: Final = 1_000_000  # a measured frequency below this is no TSC

NO_TIMER: Final = 1  # failure: channel 2 never came to its end, or the TSC hardly moved


class Clock(Struct):
    """The TSC's frequency and what follows from it. Written once."""

    tsc_hz: u64
    tsc_khz: u32
    reserved: u32
    nanoseconds_per_tick: u64  # times 2**32
    ticks_per_nanosecond: u64  # times 2**32


CLOCK: Final = static(Clock)


@machine
def scale(value: u64, multiplier: u64) -> u64:
    """Multiply by a fraction given as multiplier / 2**32; the result must fit 64 bits."""
    product = multiply_wide(value, multiplier)
    return (product.high << 32) | (product.low >> 32)


@machine
def fraction(numerator: u64, denominator: u64) -> u64:
    """Numerator * 2**32 / denominator, rounded down; numerator below 2**40, denominator below 2**34, so that no step overflows."""
    whole = numerator // denominator
    rest = numerator % denominator
    high = (rest << 16) // denominator
    low = (((rest << 16) % denominator) << 16) // denominator
    return (whole << 32) | (high << 16) | low


@machine
def set_frequency(tsc_hz: u64) -> None:
    """Derive the conversions from a frequency in Hz."""
    CLOCK.tsc_hz = tsc_hz
    CLOCK.tsc_khz = (tsc_hz // 1000).truncate(u32)
    CLOCK.nanoseconds_per_tick = fraction(u64(NANOSECONDS), tsc_hz)
    CLOCK.ticks_per_nanosecond = fraction(tsc_hz, u64(NANOSECONDS))


@machine
def start_window() -> None:
    """Start a countdown of CALIBRATION_COUNT in channel 2, the speaker off."""
    control = in8(u16(SYSTEM_CONTROL)) & 0xFC
    out8(u16(SYSTEM_CONTROL), control)
    out8(u16(PIT_COMMAND), u8(PIT_MODE_0_CHANNEL_2))
    out8(u16(PIT_CHANNEL_2), u8(CALIBRATION_COUNT & 0xFF))
    out8(u16(PIT_CHANNEL_2), u8(CALIBRATION_COUNT >> 8))
    out8(u16(SYSTEM_CONTROL), control | GATE)


@machine
def wait_for_window_end() -> bool:
    """Wait until the countdown has ended; False if it never does."""
    looks = u64(0)
    while in8(u16(SYSTEM_CONTROL)) & OUTPUT == 0:
        looks += 1
        if looks == WAIT_LIMIT:
            return False
    return True


@machine
def calibrate() -> Failure | None:
    """Measure the TSC. Interrupts must be off; takes 10 ms."""
    start_window()
    before = rdtsc()
    if not wait_for_window_end():
        return Failure(NO_TIMER)
    elapsed = rdtsc() - before
    tsc_hz = elapsed * PIT_HZ // CALIBRATION_COUNT
    if tsc_hz < SLOWEST_HZ:
        return Failure(NO_TIMER)
    set_frequency(tsc_hz)
    return None


@machine
def to_nanoseconds(ticks: u64) -> u64:
    """Convert TSC ticks to nanoseconds."""
    return scale(ticks, CLOCK.nanoseconds_per_tick)


@machine
def to_ticks(nanoseconds: u64) -> u64:
    """Convert nanoseconds to TSC ticks, rounded down."""
    return scale(nanoseconds, CLOCK.ticks_per_nanosecond)

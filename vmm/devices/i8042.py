"""The 8042 keyboard controller, ports 60h and 64h (IBM PC AT technical reference), with nothing plugged into it.

The controller answers its own commands; what is sent on to a keyboard or mouse gets no answer, as with none connected. Pulsing output
line 0 asks for a reset of the box.
"""

from __future__ import annotations

from typing import Final

from dsl.lang import Struct, machine, u8

STATUS_OUTPUT_FULL: Final = 0x01
STATUS_SYSTEM: Final = 0x04  # self-test passed
STATUS_COMMAND: Final = 0x08  # the last write went to port 64h
STATUS_UNLOCKED: Final = 0x10
STATUS_AUXILIARY: Final = 0x20  # the output byte is the mouse's

MODE_KEYBOARD_INTERRUPT: Final = 0x01
MODE_MOUSE_INTERRUPT: Final = 0x02
MODE_SYSTEM: Final = 0x04
MODE_KEYBOARD_OFF: Final = 0x10
MODE_MOUSE_OFF: Final = 0x20

OUTPUT_NOT_RESET: Final = 0x01
OUTPUT_A20: Final = 0x02
OUTPUT_RESET_STATE: Final = 0xCF

READ_MODE: Final = 0x20
WRITE_MODE: Final = 0x60
MOUSE_OFF: Final = 0xA7
MOUSE_ON: Final = 0xA8
MOUSE_TEST: Final = 0xA9
SELF_TEST: Final = 0xAA
KEYBOARD_TEST: Final = 0xAB
KEYBOARD_OFF: Final = 0xAD
KEYBOARD_ON: Final = 0xAE
READ_INPUT_PORT: Final = 0xC0
READ_OUTPUT_PORT: Final = 0xD0
WRITE_OUTPUT_PORT: Final = 0xD1
WRITE_KEYBOARD_BUFFER: Final = 0xD2
WRITE_MOUSE_BUFFER: Final = 0xD3
WRITE_MOUSE: Final = 0xD4
A20_OFF: Final = 0xDD
A20_ON: Final = 0xDF
PULSE: Final = 0xF0  # and above: output lines whose bit is clear in bits 3:0 fall for a moment

SELF_TEST_PASSED: Final = 0x55
INTERFACE_TEST_PASSED: Final = 0x00
INPUT_PORT: Final = 0x80  # keyboard not locked


class KeyboardController(Struct):
    """The controller's registers and its one byte of output."""

    status: u8
    mode: u8  # the "command byte"
    output_port: u8
    output: u8
    command: u8  # the command that waits for its byte at port 60h; 0 for none
    reset_asked: bool
    reserved: u8
    reserved_end: u8


@machine
def i8042_reset(controller: KeyboardController) -> None:
    """Put the controller into the state after power-on and the firmware's self-test."""
    controller.clear()
    controller.status = u8(STATUS_COMMAND | STATUS_UNLOCKED | STATUS_SYSTEM)
    controller.mode = u8(MODE_KEYBOARD_INTERRUPT | MODE_MOUSE_INTERRUPT | MODE_SYSTEM)
    controller.output_port = u8(OUTPUT_RESET_STATE)


@machine
def put(controller: KeyboardController, value: u8, mouse: bool) -> None:
    """Put a byte into the output buffer, over one that nobody read."""
    controller.output = value
    status = (controller.status & ~u8(STATUS_AUXILIARY)) | STATUS_OUTPUT_FULL
    controller.status = status | STATUS_AUXILIARY if mouse else status


@machine
def write_output_port(controller: KeyboardController, value: u8) -> None:
    """Set the output lines; line 0 low is a reset. A20 is kept and has no effect: it is always on."""
    controller.output_port = value
    if value & OUTPUT_NOT_RESET == 0:
        controller.reset_asked = True


@machine
def run_command(controller: KeyboardController, command: u8) -> None:
    """Obey a byte written to port 64h."""
    if command == READ_MODE:
        put(controller, controller.mode, False)
    elif command == WRITE_MODE or (command >= WRITE_OUTPUT_PORT and command <= WRITE_MOUSE):
        controller.command = command
    elif command == SELF_TEST:
        controller.status |= STATUS_SYSTEM
        put(controller, u8(SELF_TEST_PASSED), False)
    elif command == KEYBOARD_TEST:
        put(controller, u8(INTERFACE_TEST_PASSED), False)
    elif command == MOUSE_TEST:
        put(controller, u8(INTERFACE_TEST_PASSED), False)
    elif command == READ_INPUT_PORT:
        put(controller, u8(INPUT_PORT), False)
    elif command == READ_OUTPUT_PORT:
        put(controller, controller.output_port, False)
    elif command >= PULSE:
        if command & OUTPUT_NOT_RESET == 0:
            controller.reset_asked = True
    else:
        switch(controller, command)


@machine
def switch(controller: KeyboardController, command: u8) -> None:
    """Obey the commands that turn something on or off; ignore what no controller knows."""
    if command == MOUSE_OFF:
        controller.mode |= MODE_MOUSE_OFF
    elif command == MOUSE_ON:
        controller.mode &= ~u8(MODE_MOUSE_OFF)
    elif command == KEYBOARD_OFF:
        controller.mode |= MODE_KEYBOARD_OFF
    elif command == KEYBOARD_ON:
        controller.mode &= ~u8(MODE_KEYBOARD_OFF)
    elif command == A20_OFF:
        controller.output_port &= ~u8(OUTPUT_A20)
    elif command == A20_ON:
        controller.output_port |= OUTPUT_A20


@machine
def take_data(controller: KeyboardController, value: u8) -> None:
    """Take a byte written to port 60h: the operand of the command that waits, or one for a keyboard that is not there."""
    command = controller.command
    controller.command = u8(0)
    if command == WRITE_MODE:
        controller.mode = value
    elif command == WRITE_OUTPUT_PORT:
        write_output_port(controller, value)
    elif command == WRITE_KEYBOARD_BUFFER:
        put(controller, value, False)
    elif command == WRITE_MOUSE_BUFFER:
        put(controller, value, True)


@machine
def i8042_read_data(controller: KeyboardController) -> u8:
    """Read port 60h: the output byte, which stays there but no longer counts as new."""
    controller.status &= ~u8(STATUS_OUTPUT_FULL | STATUS_AUXILIARY)
    return controller.output


@machine
def i8042_read_status(controller: KeyboardController) -> u8:
    """Read port 64h. The input buffer is never seen full: a command is obeyed at once."""
    return controller.status


@machine
def i8042_write_data(controller: KeyboardController, value: u8) -> None:
    """Write port 60h."""
    controller.status &= ~u8(STATUS_COMMAND)
    take_data(controller, value)


@machine
def i8042_write_command(controller: KeyboardController, value: u8) -> None:
    """Write port 64h."""
    controller.status |= STATUS_COMMAND
    controller.command = u8(0)
    run_command(controller, value)


@machine
def i8042_keyboard_line(controller: KeyboardController) -> bool:
    """Return the level of interrupt line 1: silent while the keyboard is switched off."""
    full = controller.status & (STATUS_OUTPUT_FULL | STATUS_AUXILIARY) == STATUS_OUTPUT_FULL
    return full and controller.mode & (MODE_KEYBOARD_INTERRUPT | MODE_KEYBOARD_OFF) == MODE_KEYBOARD_INTERRUPT


@machine
def i8042_mouse_line(controller: KeyboardController) -> bool:
    """Return the level of interrupt line 12."""
    full = controller.status & (STATUS_OUTPUT_FULL | STATUS_AUXILIARY) == STATUS_OUTPUT_FULL | STATUS_AUXILIARY
    return full and controller.mode & MODE_MOUSE_INTERRUPT != 0


@machine
def i8042_take_reset(controller: KeyboardController) -> bool:
    """Tell once whether a reset was asked for."""
    asked = controller.reset_asked
    controller.reset_asked = False
    return asked

"""Secrets in IR: no pass may make control flow, an address or a division depend on one.

The checker refuses that in the source; this is the same rule on what the optimiser made. A value is secret if it brings one in
(Value.secret) or comes of one; `opaque` with DECLASSIFIED ends it. Memory is not followed: each load of a secret is marked itself.
"""

from __future__ import annotations

from typing import Final

from dsl.compiler.ir import DECLASSIFIED, Function, Value

DIVISIONS: Final = ("udiv", "urem", "sdiv", "srem")
# What a secret operand does not make its result: memory and calls, whose results are marked by themselves.
ENDS: Final = ("load", "store", "call", "extract", "intrinsic")


class SecretLeak(Exception):
    """A pass made something observable depend on a secret: a defect of the compiler."""


def refuse_leaks(function: Function) -> None:
    """Raise SecretLeak where a secret steers the machine."""
    secrets = secret_values(function)
    if not secrets:
        return
    for value in function.values():
        for index in steering(value):
            if value.arguments[index] in secrets:
                span = value.span
                place = f"{span.file}:{span.line}" if span else "?"
                raise SecretLeak(f"{function.symbol}: {value.operation} at {place} depends on a secret")


def secret_values(function: Function) -> set[Value]:
    """Every value that is secret, to a fixed point (phis of loops come before what they merge)."""
    secrets = {value for value in function.values() if value.secret}
    grown = bool(secrets)
    while grown:
        grown = False
        for value in function.values():
            if value not in secrets and value.operation not in ENDS and value.data != DECLASSIFIED:
                if any(argument in secrets for argument in value.arguments):
                    secrets.add(value)
                    grown = True
    return secrets


def steering(value: Value) -> range | tuple[int, ...]:
    """The arguments of a value that time or an access pattern shows."""
    if value.operation in ("branch", "check", "load", "store"):
        return (0,)
    if value.operation in DIVISIONS:
        return (0, 1)
    if value.operation == "intrinsic":
        name = getattr(value.data, "name", "")
        return (0, 2) if name in ("fill_bytes", "fill_words") else range(len(value.arguments))
    return ()

"""Checks over linked programs: what the emitted instructions of loader and monitor must and must not do. Start at rules.py."""

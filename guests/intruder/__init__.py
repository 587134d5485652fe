"""The intruder: an open box that tries to get out, and counts what it met."""

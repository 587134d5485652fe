"""What the boot tests build into their loader: keys that sign nothing else, and a font of distinct glyphs."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"boot tests").digest())
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"somebody else").digest())
PUBLIC_KEY = KEY.public_key().public_bytes_raw()
SECRET = hashlib.sha256(b"a development secret").digest()
FONT = bytes(glyph ^ (line * 37) & 0xFF for glyph in range(95) for line in range(16))

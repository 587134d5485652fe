"""The keys of the boot tests: they sign nothing else."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"boot tests").digest())
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"somebody else").digest())
PUBLIC_KEY = KEY.public_key().public_bytes_raw()
SECRET = hashlib.sha256(b"a development secret").digest()

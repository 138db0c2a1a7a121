"""Identifiers.

A run id is 12 random characters of RFC 4648 base32 in lower case (60 bits), made by whoever submits, so that submitting
again with the same id is harmless. An attempt id is 128 random bits in hex: it also serves as the fence's name.
"""

import os

RUN_ID_LENGTH = 12
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


def new_run_id() -> str:
    """Return a new run id: 12 characters of ``a-z2-7``."""
    return "".join(_ALPHABET[byte & 31] for byte in os.urandom(RUN_ID_LENGTH))


def new_attempt_id() -> str:
    """Return a new attempt id: 32 hex digits."""
    return os.urandom(16).hex()


def new_secret() -> str:
    """Return 256 random bits in hex, for tokens."""
    return os.urandom(32).hex()


def is_run_id(text: str) -> bool:
    """Tell whether text has the form of a whole run id."""
    return len(text) == RUN_ID_LENGTH and all(c in _ALPHABET for c in text)

"""User codes, as people type them: eight consonants, `WDJB-MJHT` (RFC 8628, 6.1)."""


def normal(code: str) -> str:
    """What of a typed code means something."""
    return "".join(letter for letter in code.upper() if letter.isalnum())

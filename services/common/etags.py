"""Etags: the revision of a row, in decimal digits."""

import re

from services.common.errors import EtagMismatch

_ETAG = re.compile(r"[0-9]{1,18}")  # what fits into a bigint


def revision(etag: str, what: str) -> int:
    """The revision an etag names; 0 for none given. Raises EtagMismatch for what was never an etag of `what`."""
    if not etag:
        return 0
    if not _ETAG.fullmatch(etag) or not int(etag):
        raise EtagMismatch(f"the {what} was changed meanwhile; read it again")
    return int(etag)

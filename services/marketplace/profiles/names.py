"""Names that look alike, and websites that are proven."""

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

# Of ASCII what is taken for something else at a glance.
_LOOKS = (("rn", "m"), ("vv", "w"), ("cl", "d"), ("0", "o"), ("1", "l"), ("i", "l"), ("5", "s"), ("2", "z"), ("8", "b"))


def skeleton(name: str) -> str:
    """What ASCII names that look alike share: without case, spaces and punctuation."""
    text = re.sub(r"[^a-z0-9]", "", name.lower())
    for seen, taken_for in _LOOKS:
        text = text.replace(seen, taken_for)
    return text


def proven(website: str, domains: Iterable[str]) -> bool:
    """Whether a website is of one of these domains, or below it."""
    host = (urlsplit(website).hostname or "").lower()
    return any(host == domain or host.endswith(f".{domain}") for domain in domains)

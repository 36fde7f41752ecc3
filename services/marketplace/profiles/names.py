"""Display names that look alike, and websites that are proven."""

from collections.abc import Iterable
from urllib.parse import urlsplit

from services.common import names

# What is mistaken in a name for people, beside what is in a handle.
_LOOKS = (("cl", "d"), ("2", "z"), ("8", "b"))


def skeleton(name: str) -> str:
    """What ASCII names that look alike share: without case, spaces and punctuation."""
    return names.skeleton(name, _LOOKS)


def proven(website: str, domains: Iterable[str]) -> bool:
    """Whether a website is of one of these domains, or below it."""
    host = (urlsplit(website).hostname or "").lower()
    return any(host == domain or host.endswith(f".{domain}") for domain in domains)

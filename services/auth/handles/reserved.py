"""Names that speak for the platform, or that addresses need. Pure."""

from services.common.names import skeleton

_PLATFORM = "mercat"
_WORDS = """abuse account accounts admin administrator anonymous api auth billing console contact docs everyone help
helpdesk info internal legal login mail marketplace me models moderator noreply null oauth official openai operator
ops organisation organisations organization owner payments payouts postmaster pricing privacy public publisher
publishers registry root search security service services settings signin signup staff status store superuser support
system team teams terms undefined user users v1 v2 verified webmaster webhooks www"""
_RESERVED = frozenset(map(skeleton, _WORDS.split()))
_PSEUDONYMS = "deleted-"  # of those who were erased: somebody who has one would stop an erasure


def is_reserved(handle: str) -> bool:
    """Also what looks like it, and what is the platform's by its beginning: `mercat`, `mercat-support`, `rnercat`."""
    text = skeleton(handle)
    rest = text.removeprefix(skeleton(_PLATFORM))
    return text in _RESERVED or (rest != text and (not rest or rest in _RESERVED)) or handle.startswith(_PSEUDONYMS)

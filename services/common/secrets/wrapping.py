"""How data keys are encrypted themselves: under keys of the installation, held here or by Vault."""

import asyncio
import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from services.common.errors import Unavailable
from services.common.sealing import Sealer, Unsealable
from services.common.secrets.sources import SecretUnavailable

if TYPE_CHECKING:
    from services.common.secrets.vault import Transit

log = logging.getLogger(__name__)
T = TypeVar("T")
_DIGEST = 32  # octets


class Wrapper(ABC):
    """`about` names what a key is of, and must be the same to unwrap it."""

    @abstractmethod
    async def under(self) -> str:
        """The name of the key that wraps now. Raises Unavailable, as the others, where Vault cannot be asked."""

    @abstractmethod
    async def wrap(self, key: bytes, about: str) -> bytes: ...

    @abstractmethod
    async def unwrap(self, wrapped: bytes, about: str) -> bytes:
        """Raises Unsealable."""


class LocalWrapper(Wrapper):
    """Under the keys of a Sealer."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    async def under(self) -> str:
        return self._sealer.newest

    async def wrap(self, key: bytes, about: str) -> bytes:
        return self._sealer.seal(key, about)

    async def unwrap(self, wrapped: bytes, about: str) -> bytes:
        return self._sealer.open(wrapped, about)


class TransitWrapper(Wrapper):
    """Under a key of Vault's transit engine. What a key is of lies in front of it, since not all kinds of transit keys
    authenticate more than what they encrypt."""

    def __init__(self, transit: "Transit") -> None:
        self._transit = transit

    async def under(self) -> str:
        return f"{self._transit.key}:v{await _asked(self._transit.newest)}"

    async def wrap(self, key: bytes, about: str) -> bytes:
        return await _asked(lambda: self._transit.encrypt(_digest(about) + key))

    async def unwrap(self, wrapped: bytes, about: str) -> bytes:
        try:
            plain = await _asked(lambda: self._transit.decrypt(wrapped))
        except UnicodeDecodeError:
            raise Unsealable(f"{about} was altered") from None
        if plain[:_DIGEST] != _digest(about):
            raise Unsealable(f"{about} belongs elsewhere")
        return plain[_DIGEST:]


async def _asked(question: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(question)
    except SecretUnavailable as e:
        log.error("%s", e)
        raise Unavailable("secrets cannot be opened just now", retry_after=1) from None


def wrapper_of(transit: str, sealer: Sealer) -> Wrapper:
    """Vault's, by the name of its key, else the installation's own. Raises SecretUnavailable."""
    if not transit:
        return LocalWrapper(sealer)
    from services.common.secrets.vault import Transit, client  # which only those import who have one

    return TransitWrapper(Transit(client(), transit))


def _digest(about: str) -> bytes:
    return hashlib.sha256(about.encode()).digest()

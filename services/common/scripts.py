"""Scripts that Redis runs, and what is known of whether it is there."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from importlib import resources
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

log = logging.getLogger(__name__)
_PATIENCE, _AGAIN = 0.5, 0.5  # seconds that Redis may take, and until it is tried again once it is gone


def source(package: str, name: str) -> str:
    """The text of a script that lies in a package."""
    return resources.files(package).joinpath(name).read_text()


class Script:
    """A script in Redis. While Redis is gone it is asked beside the calls, so that none waits for one that says
    nothing."""

    def __init__(
        self, redis: "Redis", package: str, name: str, back: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """`back` is awaited when Redis is back, before scripts run again."""
        self._redis = redis
        self._run = redis.register_script(source(package, name))
        self._back = back
        self._waiting: asyncio.Task[None] | None = None

    async def run(self, keys: Sequence[str], args: Sequence[float | str]) -> list[Any] | None:
        """The script's answer; None while Redis is gone."""
        if self._waiting is not None:
            return None
        try:
            async with asyncio.timeout(_PATIENCE):
                answer: list[Any] = await self._run(list(keys), list(args))
                return answer
        except (RedisError, OSError, TimeoutError) as e:
            log.warning("limits are kept locally: Redis is gone: %r", e)
            self._waiting = asyncio.get_running_loop().create_task(self._until_back())
            return None

    async def _until_back(self) -> None:
        while True:
            await asyncio.sleep(_AGAIN)
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self._redis.ping()
                    if self._back is not None:
                        await self._back()
            except (RedisError, OSError, TimeoutError):
                continue
            log.info("Redis is back")
            self._waiting = None
            return

"""Work that falls due, looked for again and again: often while there is some, seldom while there is none."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from services.common import clock
from services.common.db import Database
from services.common.errors import MercatError

log = logging.getLogger(__name__)
_SELDOM = 4.0  # seconds


async def repeat(
    work: Callable[[], Awaitable[int]], waiting: str, *, batch: int = 1, every: float = 1.0,
    wakes: Database | None = None,
) -> None:  # fmt: skip
    """Calls `work`, which answers how much it did, for ever: again at once when that was a whole batch, else after
    `every` seconds, and ever later while there is nothing to do. A commit of `wakes` that added to the outbox ends the
    wait. What fails is logged as `waiting`, and done later: the services beside it go on."""
    wake = asyncio.Event()
    if wakes is not None:
        wakes.relays.append(wake)
    pause = every
    while True:
        done = 0
        try:
            while (done := await work()) >= batch:
                pass
        except MercatError as e:
            log.warning("%s: %s", waiting, e)
        except Exception:
            log.exception(waiting)
            await asyncio.sleep(every)
        # Time that is moved ahead makes things due all at once.
        pause = every if done or clock.is_moved() else min(2 * pause, max(every, _SELDOM))
        try:
            await asyncio.wait_for(wake.wait(), pause)
            pause = every
        except TimeoutError:
            pass
        wake.clear()

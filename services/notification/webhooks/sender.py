"""Sends what is due: claims it, posts it outside any transaction, and notes what came of it. A process that dies
between leaves its claims to run out, and what they were of is sent again under the same id."""

import asyncio
import logging
import random
import time
from collections import Counter as Tally
from dataclasses import dataclass
from datetime import datetime, timedelta

import httpcore2

from services.common import failpoints
from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.egress import Answer, Egress, EgressRefused
from services.common.errors import MercatError
from services.common.metrics import Counter, Histogram
from services.common.sealing import Unsealable
from services.common.secrets.keyring import Keyring
from services.notification.settings import NotificationSettings
from services.notification.webhooks import schedule, signing
from services.notification.webhooks.store import Row, WebhookStore

log = logging.getLogger(__name__)
ATTEMPTS = Counter("mercat_webhook_attempts", "Attempts to deliver an event to a webhook endpoint", ["outcome"])
SECONDS = Histogram("mercat_webhook_seconds", "Time of an attempt", ["outcome"])
_POLL = 1.0  # seconds; what was put off becomes due
_GRACE = 5.0  # seconds for attempts under way when the process ends
_SWEEP = 600.0  # seconds
_SHOWN = 1000  # characters of an answer
_GONE = 410


@dataclass(frozen=True)
class Result:
    """What an attempt came to; `error` is empty when it was good."""

    status: int
    error: str
    response: str = ""


class Sender:
    """Sends to many endpoints at once, and to each a few deliveries at once, so that a slow one holds up itself."""

    def __init__(
        self, database: Database, store: WebhookStore, keyring: Keyring, egress: Egress, clock: Clock,
        settings: NotificationSettings,
    ) -> None:  # fmt: skip
        self._database = database
        self._store = store
        self._keyring = keyring
        self._egress = egress
        self._clock = clock
        self._settings = settings
        self._timeout = settings.webhook_timeout
        self._claim = timedelta(seconds=2 * self._timeout + 5)  # longer than an attempt can take
        self._tasks: dict[asyncio.Task[None], str] = {}
        self._wake = asyncio.Event()
        self._closing = False

    async def run(self) -> None:
        """For ever."""
        self._database.relays.append(self._wake)
        while True:
            some = False
            try:
                some = await self._claim_some()
            except MercatError as e:
                log.warning("webhooks wait: %s", e)
            except Exception:
                log.exception("webhooks wait")
            if not some:
                try:
                    await asyncio.wait_for(self._wake.wait(), _POLL)
                except TimeoutError:
                    pass
                self._wake.clear()

    async def _claim_some(self) -> bool:
        """Begins to send some of what is due; whether there may be more."""
        room = self._settings.webhook_total_concurrency - len(self._tasks)
        if room <= 0 or self._closing:
            return False  # the end of one wakes us
        now = self._clock.now()
        async with self._database.connection() as connection:
            rows = await self._store.claim_deliveries(
                connection, now, now + self._claim, busy=Tally(self._tasks.values()), most=room,
                each=self._settings.webhook_concurrency, failing=schedule.FAILURES,
            )  # fmt: skip
        for row in rows:
            task = asyncio.create_task(self._send(row), name="webhook")
            self._tasks[task] = row["endpoint_id"]
            task.add_done_callback(self._ended)
        return bool(rows)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        self._wake.set()

    async def _send(self, row: Row) -> None:
        failpoints.passing("webhook.claimed")
        at, began = self._clock.now(), time.perf_counter()
        try:
            result = await self._attempt(row)
            took = time.perf_counter() - began
            outcome = "failed" if result.error else "succeeded"
            ATTEMPTS.labels(outcome).inc()
            SECONDS.labels(outcome).observe(took)
            failpoints.passing("webhook.sent")
            async with self._database.transaction() as connection:
                await self._note(connection, row, result, at, took)
        except MercatError as e:
            log.warning("%s is sent again when its claim has run out: %s", row["id"], e)
        except Exception:
            log.exception("%s is sent again when its claim has run out", row["id"])

    async def _attempt(self, row: Row) -> Result:
        async with self._database.connection() as connection:
            try:
                secrets = [await self._open(connection, row, row["sealed_secret"])]
                if row["previous_secret"] is not None and row["previous_until"] > self._clock.now():
                    secrets.append(await self._open(connection, row, row["previous_secret"]))
            except Unsealable:
                return Result(0, "the endpoint's secret cannot be read any more; rotate it")
        body = row["body"].encode()
        headers = {
            "content-type": "application/json", "user-agent": "mercat-webhooks/1",
            # Receivers compare with their own clocks, whatever time this platform has.
            **signing.headers(row["event_id"], int(self._clock.machine().timestamp()), body, secrets),
        }  # fmt: skip
        try:
            answer = await self._egress.post(row["url"], headers, body, seconds=self._timeout)
        except EgressRefused as e:
            return Result(0, f"not called: {e}")
        except (TimeoutError, httpcore2.TimeoutException):
            return Result(0, f"no answer within {self._timeout:g} s")
        except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError) as e:
            return Result(0, f"{type(e).__name__}: {_text(str(e).encode())[:200]}")
        return _result(answer)

    async def _open(self, connection: Connection, row: Row, sealed: bytes) -> bytes:
        return await self._keyring.open(connection, row["org_id"], bytes(sealed), row["endpoint_id"])

    async def _note(self, c: Connection, row: Row, result: Result, at: datetime, took: float) -> None:
        now, number, endpoint_id = self._clock.now(), row["attempts"], row["endpoint_id"]
        again = None
        if result.error and not row["once"] and result.status != _GONE:
            again = schedule.next_attempt(row["tries"], now, random.random)
        state = "succeeded" if not result.error else "failed" if again is None else "pending"
        await self._store.end_attempt(
            c, row["id"], number, state=state, due_at=again or now, status_code=result.status, error=result.error,
            ended_at=None if again else now,
        )  # fmt: skip
        await self._store.add_attempt(
            c, row["id"], number, at=at, duration_ms=round(took * 1000), status_code=result.status, error=result.error,
            response=result.response,
        )  # fmt: skip
        if not result.error:
            await self._store.endpoint_answered(c, endpoint_id)
            return
        endpoint = await self._store.endpoint_failed(c, endpoint_id, now)
        if endpoint is None:
            return
        if result.status == _GONE:
            await self._store.disable_endpoint(c, endpoint, "gone", now)
        elif now - endpoint["failing_since"] >= timedelta(days=self._settings.webhook_disable_days):
            await self._store.disable_endpoint(c, endpoint, "failing", now)
        elif (until := schedule.pause(endpoint["failures"], now)) is not None:
            await self._store.pause_endpoint(c, endpoint_id, until)

    async def sweep(self) -> None:
        """Ends what waited in vain and forgets what is old, for ever."""
        while True:
            now = self._clock.now()
            try:
                async with self._database.transaction() as connection:
                    await self._store.sweep(
                        connection, now, now - schedule.LONGEST, now - timedelta(days=self._settings.webhook_days)
                    )
            except MercatError as e:
                log.warning("sweep of webhooks: %s", e)
            await asyncio.sleep(_SWEEP)

    async def close(self) -> None:
        """Begins no more, and waits for attempts under way, some seconds."""
        self._closing = True
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=_GRACE)
        await self._egress.close()


def _result(answer: Answer) -> Result:
    shown = _text(answer.body)[:_SHOWN]
    if 200 <= answer.status < 300:
        return Result(answer.status, "", shown)
    redirects = 300 <= answer.status < 400
    return Result(
        answer.status, f"answered {answer.status}{'; redirects are not followed' if redirects else ''}", shown
    )


def _text(data: bytes) -> str:
    """What PostgreSQL takes for a text."""
    return data.decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")

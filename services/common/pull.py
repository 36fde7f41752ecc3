"""Messages of a durable consumer of JetStream, asked for in batches.

nats-py's own `fetch` can leave a request behind on the server when one ends while the next is made; the message after
it is then handed on only when that one ends too, seconds later. Here every request has an answer of its own: the end of
an earlier one means nothing to a later."""

import asyncio
import json
from types import TracebackType
from typing import Self

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.js import JetStreamContext

_WINDOW = 5.0  # seconds for which one request waits for a first message
_GRACE = 1.0  # seconds after that in which the server says so, if it is there
_ENDED = ("404", "408")  # nothing more is there; nothing came


class Puller:
    """Asks for messages of an existing consumer; used with `async with`."""

    def __init__(self, client: Client, stream: str, durable: str) -> None:
        self._client = client
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._inbox = client.new_inbox()
        self._arrived: asyncio.Queue[Msg] = asyncio.Queue()
        self._subscription: Subscription | None = None
        self._asked = 0

    async def __aenter__(self) -> Self:
        self._subscription = await self._client.subscribe(f"{self._inbox}.*", cb=self._arrived.put)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._subscription is not None
        if not self._client.is_closed and not self._client.is_draining:
            await self._subscription.unsubscribe()

    async def next(self, batch: int) -> list[Msg]:
        """What is there now, at most `batch`; when nothing is, what comes first within 5 s, and nothing if none does.

        Raises:
            nats.errors.Error: the consumer, the stream or JetStream itself is gone.
        """
        self._asked += 1
        answer = f"{self._inbox}.{self._asked}"
        # With both `no_wait` and `expires` the server gives what it has; or waits for the first, gives it and ends.
        request = {"batch": batch, "no_wait": True, "expires": int(_WINDOW * 1e9)}
        await self._client.publish(self._subject, json.dumps(request).encode(), reply=answer)
        messages: list[Msg] = []
        try:
            async with asyncio.timeout(_WINDOW + _GRACE):
                while len(messages) < batch:
                    message = await self._arrived.get()
                    status = JetStreamContext.is_status_msg(message)
                    if status is None:
                        messages.append(message)
                    elif message.subject == answer:
                        if status not in _ENDED and not messages:
                            raise NatsError(f"the server ended a request: {status} {message.header}")
                        break
        except TimeoutError:  # the server went away, and the request with it
            pass
        return messages

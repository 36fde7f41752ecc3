"""Calls and payments that go on while a test breaks things."""

import asyncio
import math
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
from mercat.billing.v1 import payments_pb2

from tests import graphs
from tests.integration.payments.cards import attach, settled
from tests.platform import USD, Platform
from tests.robustness.oracle import RESOLVED_IN, Verdict, judge
from tests.robustness.traffic import Caller, Seen

PRICE = 1_000_000  # nanos a call
CREDIT = 1000 * USD
PACE = 250  # calls a second at most, so that what was killed has some of the machine to come back
_FOR_GOOD = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.PERMISSION_DENIED)


def priced(platform: Platform) -> str:
    """A model of a publisher's whose calls cost `PRICE`."""
    return platform.publish(platform.publisher(), graphs.tiny(), batch=64, price={"requests": PRICE * 1_000_000})


class Payer:
    """Somebody who pays a dollar by card once a second, from now until `stop`."""

    def __init__(self, platform: Platform) -> None:
        self._person = platform.sign_up()
        attach(self._person)
        self._stopping, self._until = threading.Event(), math.inf
        self._thread = ThreadPoolExecutor(1)
        self._made = self._thread.submit(self._pay)

    def _pay(self) -> list[str]:
        made = []
        while not self._stopping.wait(1):
            made.append(self._once())
        return made

    def _once(self) -> str:
        """One payment, asked for under one key until somebody answers; its id."""
        key = (("idempotency-key", secrets.token_hex(8)),)
        while True:
            try:
                request = payments_pb2.CreatePaymentRequest(amount_nanos=USD)
                return str(self._person.payments.CreatePayment(request, metadata=key, timeout=10).payment.payment_id)
            except grpc.RpcError as e:
                if e.code() in _FOR_GOOD or time.monotonic() > self._until:
                    raise
                time.sleep(0.2)

    def stop(self) -> None:
        """Begins no more payments; the last one may take a minute."""
        self._until = time.monotonic() + RESOLVED_IN
        self._stopping.set()

    def settled(self) -> int:
        """How many payments there were; each has succeeded, once."""
        made = self._made.result()
        self._thread.shutdown()
        for payment_id in made:
            assert settled(self._person, payment_id).status == payments_pb2.Payment.STATUS_SUCCEEDED
        assert len(set(made)) == len(made)
        assert self._person.balance() == len(made) * USD
        return len(made)


class Run:
    """Calls of a new consumer, and with `pays` payments of another one, from now until `judged`."""

    def __init__(
        self,
        platform: Platform,
        model: str,
        *,
        in_flight: int = 8,
        keyed: bool = False,
        pays: bool = False,
        pace: float = 0.0,
    ) -> None:
        self._platform = platform
        self._consumer = platform.sign_up(credit=CREDIT)
        self._payer = Payer(platform) if pays else None
        self.caller = Caller(platform.grpc, self._consumer.api_key, model)
        self._going = asyncio.create_task(
            self.caller.many(10**9, in_flight=in_flight, seconds=3600, keyed=keyed, pace=pace)
        )

    @property
    def seen(self) -> Seen:
        return self.caller.seen

    async def until(self, calls: int) -> None:
        """Returns when so many calls have been answered OK."""
        while len(self.seen.ok) < calls:
            assert not self._going.done()
            await asyncio.sleep(0.05)

    async def more(self, seconds: float) -> None:
        """As many callers beside the others for a while, since those may all be waiting."""
        until = time.monotonic() + seconds

        async def one_after_another() -> None:
            while time.monotonic() < until:
                await self.caller.call()
                await asyncio.sleep(0.05)

        await asyncio.gather(*(one_after_another() for _ in range(8)))

    async def rest(self) -> None:
        """Ends the calls, and the payments when the one under way has ended."""
        self.caller.stop()
        if self._payer is not None:
            self._payer.stop()
        await self._going

    async def stop(self) -> None:
        """Ends all of it."""
        await self.rest()
        await self.caller.channel.close()

    async def judged(self, *, rate: bool = True, backlog: float = RESOLVED_IN) -> Verdict:
        """Ends the calls and holds them against usage and ledger."""
        await self.stop()
        return await asyncio.to_thread(
            judge, self._platform, self._consumer, self.seen, credit=CREDIT, price=PRICE, rate=rate, backlog=backlog,
            settle=self._settle,
        )  # fmt: skip

    def _settle(self) -> None:
        if self._payer is not None:
            print(f"oracle L: {self._payer.settled()} payments succeeded")


Start = Callable[..., Run]


async def kill(platform: Platform, part: str) -> None:
    """SIGKILL, and waits until the supervisor has the part back."""
    died = platform.kill(part)
    await asyncio.to_thread(platform.until_ready, part, died)

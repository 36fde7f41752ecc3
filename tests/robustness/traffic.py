"""Callers: many calls at once, each remembered as OK, ERROR or UNKNOWN (no reply that says which)."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from services.common.errors import from_rpc_error

# Codes that an answer of Mercat's own can have; a broken connection shows as UNAVAILABLE without Mercat's trailers.
_IN_DOUBT = {
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
}


@dataclass
class Seen:
    """What the callers saw."""

    calls: int = 0  # those that ended
    ok: set[str] = field(default_factory=set)
    errors: Counter[str] = field(default_factory=Counter)
    unknown: int = 0
    refused: set[str] = field(default_factory=set)  # request ids of calls that were answered with an error
    seconds: float = 0.0
    costs: Counter[int] = field(default_factory=Counter)
    keyed: dict[str, str] = field(default_factory=dict)  # request ids of calls that ended OK, by idempotency key
    twice: list[str] = field(default_factory=list)  # OK request ids of two different calls, or of one key two of them
    hintless: Counter[str] = field(default_factory=Counter)  # UNAVAILABLE without a hint when to try again, by reason

    @property
    def per_second(self) -> float:
        return self.calls / self.seconds if self.seconds else 0.0


def tiny_request(model: str, fill: int = 0) -> Any:
    """One row for `graphs.tiny`."""
    request = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=[bytes([fill]) * 16])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    return request


class Caller:
    """Calls one model with one key through one address."""

    def __init__(self, target: str, api_key: str, model: str, *, fill: int = 0) -> None:
        self.channel = grpc.aio.insecure_channel(target, options=[("grpc.enable_retries", 0)])
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)
        self._metadata = (("authorization", f"Bearer {api_key}"),)
        self._request = tiny_request(model, fill)
        self.seen = Seen()
        self._stopped = False

    async def call(self, *, timeout: float = 20, key: str = "") -> str:
        """One call; answers OK, the reason of its error, or UNKNOWN."""
        metadata = (*self._metadata, ("idempotency-key", key)) if key else self._metadata
        call = self._stub.ModelInfer(self._request, metadata=metadata, timeout=timeout)
        seen = self.seen
        try:
            await call
        except grpc.aio.AioRpcError as e:
            seen.calls += 1
            trailers = dict(e.trailing_metadata() or ())
            request_id = trailers.get("mercat-request-id")
            if request_id is None or e.code() in _IN_DOUBT:
                seen.unknown += 1
                return "UNKNOWN"
            seen.refused.add(str(request_id))
            error = from_rpc_error(e)
            seen.errors[f"{e.code().name} {error.reason}"] += 1
            if e.code() is grpc.StatusCode.UNAVAILABLE and not error.retry_after:
                seen.hintless[error.reason] += 1
            return e.code().name
        seen.calls += 1
        trailers = dict(await call.trailing_metadata())
        request_id = str(trailers["mercat-request-id"])
        if request_id != seen.keyed.setdefault(key, request_id) if key else request_id in seen.ok:
            seen.twice.append(request_id)
        seen.ok.add(request_id)
        seen.costs[int(str(trailers["mercat-cost-nanos"]))] += 1
        return "OK"

    async def once(self, key: str = "", *, patience: float = 60) -> str:
        """One call under an idempotency key, repeated until it is answered OK or for good."""
        key, until = key or secrets.token_hex(12), time.monotonic() + patience
        while True:
            ended = await self.call(key=key, timeout=10)
            if ended not in ("UNKNOWN", "UNAVAILABLE", "ABORTED") or time.monotonic() > until:
                return ended
            await asyncio.sleep(0.1)

    async def many(
        self, count: int, *, in_flight: int = 32, seconds: float = 120, keyed: bool = False, pace: float = 0.0
    ) -> Seen:
        """Calls, so many at a time, until `count` more of them are answered OK, the time is over, or `stop`. `keyed`:
        each under an idempotency key, until it is answered. `pace`: so many begin in a second at most."""
        left = count
        started = next_one = time.monotonic()

        async def turn() -> None:
            nonlocal next_one
            now = time.monotonic()
            next_one = max(now, next_one + 1 / pace)
            await asyncio.sleep(next_one - now)

        async def one_after_another() -> None:
            nonlocal left
            while left > 0 and time.monotonic() < started + seconds and not self._stopped:
                left -= 1
                if pace:
                    await turn()
                if await (self.once() if keyed else self.call()) != "OK":
                    left += 1
                    await asyncio.sleep(0.05)  # as a client that backs off a little

        await asyncio.gather(*(one_after_another() for _ in range(in_flight)))
        self.seen.seconds += time.monotonic() - started
        return self.seen

    async def at_once(self, calls: Iterable[Awaitable[str]]) -> list[str]:
        """How some of the calls above end, all made at once."""
        started = time.monotonic()
        ended = await asyncio.gather(*calls)
        self.seen.seconds += time.monotonic() - started
        return ended

    def stop(self) -> None:
        """Ends `many` when the calls under way have ended."""
        self._stopped = True


class Steady:
    """Callers who pause between their calls, from now until `stop`. Remembers each call: when it began and ended,
    seconds on the clock of `time.monotonic`, and how."""

    def __init__(self, target: str, api_key: str, model: str, *, callers: int = 24, pause: float = 0.01) -> None:
        self.caller = Caller(target, api_key, model)
        self.calls: list[tuple[float, float, str]] = []
        self._pause = pause
        self._started = time.monotonic()
        self._going = True
        self._tasks = [asyncio.create_task(self._one_after_another()) for _ in range(callers)]

    async def _one_after_another(self) -> None:
        while self._going:
            began = time.monotonic()
            ended = await self.caller.call(timeout=20)
            self.calls.append((began, time.monotonic(), ended))
            await asyncio.sleep(self._pause if ended == "OK" else 5 * self._pause)

    async def stop(self) -> Seen:
        self._going = False
        await asyncio.gather(*self._tasks)
        self.caller.seen.seconds = time.monotonic() - self._started
        await self.caller.channel.close()
        return self.caller.seen

    def between(self, first: float, last: float) -> list[str]:
        """How the calls ended that began then."""
        return [ended for began, _, ended in self.calls if first <= began < last]

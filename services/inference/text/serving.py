"""One text call, in order: what → may they → prepare → reserve → generate → count. Its cost is what was delivered."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TypeVar

from mercat.auth.v1 import auth_pb2
from mercat.inference.v1 import text_pb2
from mercat.registry.v1 import registry_pb2

from services.common.errors import DeadlineExceeded, EngineFailed, InvalidArgument, Unavailable
from services.common.rpc import tracing
from services.common.rpc.context import Call
from services.common.texts import Options, Piece, Prompt
from services.common.texts.messages import ended, message
from services.inference.charge import Charge, units_of_text
from services.inference.deployments import Deployment
from services.inference.engines import EngineUnavailable
from services.inference.hotpath import HotPath
from services.inference.text import Prepared
from services.inference.text.telemetry import STREAMS, Counts

_LONGEST = 600.0  # seconds a stream may take where neither caller nor publisher says
_RETURN = 0.03  # seconds before the caller's deadline at which a stream ends, so that it can be told what it cost
Reply = TypeVar("Reply", text_pb2.GenerateResponse, text_pb2.ChatResponse)


class NotADecoder(InvalidArgument, reason="NOT_A_DECODER"):
    """The model does not go on with texts."""


class StreamBroken(Unavailable, reason="STREAM_BROKEN"):
    """The engine failed in the middle of an answer; the call is not charged."""


@dataclass(slots=True)
class _Delivered:
    """What the caller has of a stream."""

    tokens: int = 0
    first: float = 0.0  # when the first piece came, `time.perf_counter`


def _decodes(found: Deployment, reference: str) -> Deployment:
    if not found.decodes:
        wants = "texts to embed: call Embed" if found.proto.text.kind else "tensors: call Predict"
        raise NotADecoder(f"{reference} does not go on with texts; it takes {wants}")
    return found


class TextPath:
    """Generates texts for callers."""

    def __init__(self, path: HotPath) -> None:
        self.path = path

    async def deployment(self, reference: str, caller: auth_pb2.Principal) -> Deployment:
        """The decoder version that answers, which may be the fallback of one that keeps failing. Raises ModelNotFound
        and the like, NotADecoder, EngineUnavailable."""
        found = await self._decoder(reference, caller)
        now = asyncio.get_running_loop().time()
        if found.breaker.allows(now):
            return found
        if not found.fallback or "@" in reference:
            text = f"{reference} keeps failing and is left alone for a while"
            raise EngineUnavailable(text, retry_after=found.breaker.until - now)
        return _decodes(await self.path.deployments.spare(found, caller), reference)

    async def _decoder(self, reference: str, caller: auth_pb2.Principal) -> Deployment:
        deployments = self.path.deployments
        return _decodes(deployments.cached(reference, caller) or await deployments.get(reference, caller), reference)

    async def count(self, call: Call, reference: str, prompt: Prompt) -> tuple[registry_pb2.Deployment, int, int]:
        """The version, the tokens of a prompt, and those that its context holds. Raises as `deployment` and
        Decoder.count."""
        found = await self.deployment(reference, call.principal)
        resident, _ = await self.path.resident(call, found, self._deadline(call, found))
        with resident.streaming() as decoder:
            return found.proto, await decoder.count(prompt), decoder.context_tokens

    async def stream(
        self, call: Call, reference: str, prompt: Prompt, options: Options, make: type[Reply], *, level: int = 0,
        echo: str = "",
    ) -> AsyncIterator[Reply]:  # fmt: skip
        """The answers to a prompt, as messages; the last one says what they cost.

        Raises:
            ModelNotFound, NotADecoder, RateLimited, QuotaExceeded, ConcurrencyLimited, InsufficientCredit,
            BudgetExceeded, Unavailable, whatever Decoder.prepare raises, StreamsFull, TooLate, EngineFailed: before the
            first message, not charged.
            DeadlineExceeded: what was delivered is charged.
            StreamBroken: not charged.
        """
        began = time.perf_counter()
        deployment = await self.deployment(reference, call.principal)
        slots = await self.path.enter(call, deployment)
        counts = Counts(deployment.proto.model, deployment.version)
        STREAMS.labels().inc()
        try:
            self.path.meter.check()
            deadline = self._deadline(call, deployment)
            resident, cold_start_ms = await self.path.resident(call, deployment, deadline)
            with resident.streaming() as decoder:
                prepared = await decoder.prepare(prompt, options)
                charge = self.path.charges.begin(call, deployment, began)
                try:
                    await charge.hold(
                        *(units_of_text(deployment, prepared.input_tokens, cached, prepared.most_tokens)
                          for cached in (0, prepared.input_tokens))
                    )  # fmt: skip
                except BaseException:
                    decoder.forget(prepared)
                    raise
                delivered = _Delivered()
                pieces = decoder.generate(prepared, account=call.principal.org_id, level=level, deadline=deadline)
                try:
                    async with aclosing(pieces):
                        async for reply in self._messages(call, deployment, pieces, charge, make, delivered, echo):
                            yield reply
                            delivered.tokens += reply.tokens
                    deployment.breaker.succeeded()
                    generated = time.perf_counter()
                    recorded = self._record(deployment, prepared, charge, delivered, counts)
                except EngineFailed as e:
                    charge.release()
                    deployment.breaker.failed(asyncio.get_running_loop().time())
                    if not delivered.first:
                        raise
                    call.trailers.append(("mercat-cost-nanos", "0"))
                    raise StreamBroken("the engine failed in the middle of the answer, which is free") from e
                except DeadlineExceeded:
                    if delivered.tokens:
                        cost = await self._record(deployment, prepared, charge, delivered, counts)
                        call.trailers += (
                            ("mercat-cost-nanos", str(cost)),
                            ("mercat-model-version", deployment.version),
                        )
                    raise
                except (GeneratorExit, asyncio.CancelledError):  # the caller left
                    if delivered.tokens:
                        with suppress(Unavailable):  # what it held is somebody else's already
                            self._record(deployment, prepared, charge, delivered, counts)
                    raise
                finally:
                    charge.release()
                cost = await recorded
            call.trailers += (("mercat-cost-nanos", str(cost)), ("mercat-model-version", deployment.version))
            if call.span is not None:
                stages = (("first token", began), ("tokens", delivered.first or generated), ("meter", generated))
                tracing.stages(call.span, *stages, **{"mercat.model": deployment.proto.model})
            usage = text_pb2.TextUsage(
                input_tokens=prepared.input_tokens, cached_input_tokens=prepared.cached_tokens,
                output_tokens=delivered.tokens, cost_nanos=cost, first_token_us=int((delivered.first - began) * 1e6),
                total_us=int((generated - began) * 1e6), cold_start_ms=cold_start_ms,
            )  # fmt: skip
            yield make(usage=usage)
        finally:
            STREAMS.labels().inc(-1)
            self.path.leave(slots)

    async def _messages(
        self, call: Call, deployment: Deployment, pieces: AsyncGenerator[list[Piece], None], charge: Charge,
        make: type[Reply], delivered: _Delivered, echo: str,
    ) -> AsyncIterator[Reply]:  # fmt: skip
        """The pieces as messages: what came together of one answer is one message, and the first says what answers."""
        known: set[int] = set()
        async for batch in pieces:
            if not delivered.first:
                delivered.first = time.perf_counter()
            charge.check()
            for index, of_one in _by_answer(batch):
                reply = message(make, index, of_one, first=index not in known)
                if not known:
                    reply.request_id, reply.model = call.request_id, deployment.proto.model
                    reply.version = deployment.version
                if echo and index not in known:
                    reply.text = echo + reply.text
                known.add(index)
                if reply.text or reply.tokens or ended(reply):
                    yield reply

    def _record(
        self, deployment: Deployment, prepared: Prepared, charge: Charge, delivered: _Delivered, counts: Counts
    ) -> "asyncio.Future[int]":
        cached = prepared.cached_tokens
        units = units_of_text(deployment, prepared.input_tokens, cached, delivered.tokens)
        counts.count(prepared.input_tokens, cached, delivered.tokens)
        deployment.figures.success.value += 1
        return charge.record(units)

    def _deadline(self, call: Call, deployment: Deployment) -> float:
        own = deployment.proto.settings.timeout_ms / 1000 or _LONGEST
        latest = asyncio.get_running_loop().time() + own
        return latest if call.deadline is None else min(latest, call.deadline - _RETURN)


def _by_answer(batch: list[Piece]) -> list[tuple[int, list[Piece]]]:
    found: dict[int, list[Piece]] = {}
    for piece in batch:
        found.setdefault(piece.index, []).append(piece)
    return list(found.items())

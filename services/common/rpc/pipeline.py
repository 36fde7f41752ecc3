"""What happens around every call, in straight code: id, identity, policy, limits, rules, idempotency, errors, metrics.

Handlers are wrapped once, when they are registered, with their method's policy already read; there is no interceptor
stack to walk through per call."""

import asyncio
import hmac
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError, Message
from mercat.auth.v1.auth_pb2 import Principal
from mercat.common.v1 import policy_pb2

from services.common import clock, ids, key_rules
from services.common.db import PATIENCE
from services.common.errors import (
    STATUS_KEY,
    CredentialInvalid,
    CredentialMissing,
    DatabaseUnavailable,
    DeadlineExceeded,
    EmailUnverified,
    Internal,
    MercatError,
    PermissionDenied,
    StepUpRequired,
    to_status,
)
from services.common.limits import CLASSES, Bucket, Limiter
from services.common.metrics import Counter, Histogram
from services.common.rpc import tags, tracing
from services.common.rpc.addresses import Addresses
from services.common.rpc.channels import TOKEN_KEY
from services.common.rpc.context import ROLE_NAMES, Call, Context, enter, maybe_current
from services.common.rpc.denials import Denials
from services.common.rpc.idempotency import Answer, IdempotencyKeys
from services.common.rpc.policy import Policy, validate
from services.common.rpc.principals import Principals
from services.common.rpc.signed import Nonces, Signatures
from services.common.rpc.tracing import Tracer

log = logging.getLogger(__name__)
CALLS = Counter("mercat_rpc_calls", "Calls answered", ["method", "code"])
SECONDS = Histogram("mercat_rpc_seconds", "Time to answer", ["method"])
LONGEST = 60.0  # seconds a unary call may run when its caller set no deadline
_REPEATABLE = 25 * 3600  # seconds for which a call may be made again under its idempotency key, and an hour
RECENT = 15 * 60  # seconds for which somebody has proved who they are


@dataclass(frozen=True)
class Guard:
    """What the pipeline needs of the process it runs in."""

    internal_token: str
    principals: Principals
    limiter: Limiter
    idempotency: IdempotencyKeys | None = None
    tracer: Tracer | None = None
    denials: Denials | None = None
    nonces: Nonces | None = None


def credential_of(metadata: dict[str, str | bytes]) -> str:
    """`authorization: Bearer …` or `x-api-key: …`; empty when there is neither. Raises CredentialInvalid for other
    schemes."""
    header = metadata.get("authorization")
    if header:
        scheme, _, value = str(header).partition(" ")
        if scheme.lower() != "bearer" or not value.strip():
            raise CredentialInvalid("send the credential as `authorization: Bearer …`")
        return value.strip()
    return str(metadata.get("x-api-key") or "")


def lenient(deserializer: Callable[[bytes], Message]) -> Callable[[bytes], Message | None]:
    """None for bytes that are no request, which the pipeline refuses: gRPC itself would end the call as INTERNAL."""

    def deserialize(data: bytes) -> Message | None:
        try:
            return deserializer(data)
        except DecodeError:
            return None

    return deserialize


class Pipeline:
    """The code around one method."""

    def __init__(self, method: str, policy: Policy, guard: Guard, *, streams_in: bool = False) -> None:
        self.method = method
        self.policy = policy
        self.guard = guard
        self._addresses = Addresses(guard.internal_token)
        self._signatures = Signatures(guard.nonces, self._addresses)
        self._streams_in = streams_in
        # Calls of models end by their model's timeout; a second timer would be felt.
        self._bounds_itself = policy.rate == policy_pb2.RATE_CLASS_INFERENCE
        self._calls_models = self._bounds_itself or "inference:call" in policy.scopes  # or has them called later
        self._limit = None if policy.rate == policy_pb2.RATE_CLASS_INFERENCE else CLASSES.get(policy.rate)  # type: ignore[call-overload]

    async def admit(self, context: Context) -> tuple[Call, dict[str, str | bytes]]:
        """Makes the call's record and decides whether it may go on. Raises MercatError when not."""
        metadata: dict[str, str | bytes] = dict(context.invocation_metadata() or ())
        now_ms = clock.time_ns() // 1_000_000
        call = Call(ids.new("req", now_ms), self.method, now_ms)
        enter(call)
        left = context.time_remaining()
        if left is not None:
            call.deadline = asyncio.get_running_loop().time() + left
        call.traceparent = str(metadata.get("traceparent", ""))
        if (tracer := self.guard.tracer) is not None:
            call.span, call.traceparent = tracer.start(self.method, call.request_id, call.traceparent)
        call.trailers.append(("mercat-request-id", call.request_id))
        policy = self.policy
        if policy.access == policy_pb2.ACCESS_INTERNAL:
            token = str(metadata.get(TOKEN_KEY, ""))
            if not hmac.compare_digest(token.encode(), self.guard.internal_token.encode()):
                raise PermissionDenied("this call is for Mercat's own services", reason="INTERNAL_ONLY")
            return call, metadata
        call.audited = policy.audited
        call.fresh = "cache-control" in metadata and "no-cache" in str(metadata["cache-control"])
        if tags.KEY in metadata and self._calls_models:  # all of that name: a dictionary has one
            call.tags = tags.read(str(v) for k, v in context.invocation_metadata() or () if k == tags.KEY)
        call.user_agent = str(metadata.get("user-agent", ""))[:500]
        call.address = self._addresses.of(metadata, context.peer())
        credential = credential_of(metadata)
        if credential:
            principals = self.guard.principals
            known = principals.cached(credential)
            call.principal = known if known is not None else await principals.resolve(credential)
            if call.principal.HasField("rules"):
                key_rules.check_address(call.principal.rules, call.address)
            if call.principal.HasField("signing"):
                await self._signatures.check(call.principal, metadata, context, streams_in=self._streams_in)
        elif policy.access != policy_pb2.ACCESS_PUBLIC:
            raise CredentialMissing("this call needs an API key or an access token: send `authorization: Bearer …`")
        if policy.access == policy_pb2.ACCESS_ACCOUNT:
            self._authorise(call)
        if self._limit is not None:
            bucket = Bucket(self._limit, call.principal.org_id or call.address)
            call.trailers += await self.guard.limiter.take(bucket, (bucket,))
        return call, metadata

    def _authorise(self, call: Call) -> None:
        principal, policy = call.principal, self.policy
        if policy.scopes and (missing := policy.scopes.difference(principal.scopes)):
            raise PermissionDenied(
                f"this credential lacks the scope {', '.join(sorted(missing))}",
                reason="SCOPE_MISSING", metadata={"scopes": " ".join(sorted(missing))},
            )  # fmt: skip
        if policy.roles and ROLE_NAMES.get(principal.role) not in policy.roles:
            raise PermissionDenied(
                f"this call is for the role {' or '.join(sorted(policy.roles))}", reason="ROLE_MISSING"
            )
        if policy.verified and principal.unverified:
            raise EmailUnverified(
                "verify your email address first, by the code sent there; `mercat verify --resend` sends another"
            )
        if policy.step_up:
            self._step_up(principal)

    def _step_up(self, principal: Principal) -> None:
        """Whether who calls has proved lately who they are, as the policy wants it."""
        always = self.policy.step_up == policy_pb2.STEP_UP_ALWAYS
        if principal.key_id:
            if always:
                raise PermissionDenied(
                    "this is for a person who has signed in, not for an API key", reason="SESSION_REQUIRED"
                )
            return
        second = principal.has_second_factor
        if not (always or second):
            return
        age = clock.time_ns() // 10**9 - principal.auth_time.seconds
        if age < RECENT and (principal.second_factor_used or not second):
            return
        means = "code of your second factor" if second else "password"
        raise StepUpRequired(
            f"prove again who you are, with the {means}: Reauthenticate, or `mercat sessions confirm`",
            metadata={
                "with": "code" if second else "password", "acr_values": "aal2" if second else "aal1",
                "max_age": str(RECENT),
            },
        )  # fmt: skip

    async def fail(self, context: Context, call: Call | None, error: BaseException) -> None:
        """Ends the call with the one error form. Never returns."""
        call = call or maybe_current()  # one that was not admitted
        if isinstance(error, asyncio.CancelledError):
            tracing.end(call.span if call else None, "CANCELLED")
            raise error
        request_id = call.request_id if call else ids.new("req")
        if isinstance(error, TimeoutError):
            error = DeadlineExceeded("the call took too long")
        if not isinstance(error, MercatError):
            log.error("%s %s failed", self.method, request_id, exc_info=error)
            error = Internal("an internal error; tell support the request id", reason="INTERNAL")
        if call is not None and self.guard.denials is not None:
            self.guard.denials.note(call, error, audited=self.policy.audited)
        trailers = list(call.trailers) if call else [("mercat-request-id", request_id)]
        if error.retry_after is not None:
            trailers.append(("retry-after", str(max(1, round(error.retry_after)))))
        trailers.append((STATUS_KEY, to_status(error, request_id).SerializeToString()))
        CALLS.labels(self.method, error.code.name).inc()
        tracing.end(call.span if call else None, error.code.name, error.reason)
        await context.abort(error.code, error.message, tuple(trailers))

    def unary(self, handler: Callable[..., Any], reply_type: type[Message]) -> Callable[..., Any]:
        """Wraps a unary-unary method."""
        done, seconds = CALLS.labels(self.method, "OK"), SECONDS.labels(self.method)

        async def call_it(request: Message | None, context: Context) -> Message | None:
            started = time.perf_counter()
            call: Call | None = None
            try:
                call, metadata = await self.admit(context)
                validate(request)
                assert request is not None
                if call.audited:
                    call.request = request
                key = metadata.get("idempotency-key")
                if key is not None and self.policy.mutates and self.guard.idempotency is not None:
                    reply = await self._once(call, str(key), request, context, handler, reply_type)
                else:
                    if self._bounds_itself:
                        reply = await handler(request, context)
                    else:
                        async with asyncio.timeout(None if call.deadline is not None else LONGEST):
                            reply = await self._patiently(call, handler, request, context)
                context.set_trailing_metadata(tuple(call.trailers))
            except (Exception, asyncio.CancelledError) as e:
                await self.fail(context, call, e)
                return None
            tracing.end(call.span, "OK")
            done.value += 1
            seconds.observe(time.perf_counter() - started)
            return reply

        return call_it

    async def _patiently(self, call: Call, handler: Callable[..., Any], request: Message, context: Context) -> Any:
        """Runs the handler, and again when the database went away under it: what it had begun was rolled back, so that
        nothing happens twice."""
        loop = asyncio.get_running_loop()
        until, trailers = loop.time() + PATIENCE, len(call.trailers)
        while True:
            try:
                return await handler(request, context)
            except DatabaseUnavailable:
                if loop.time() > until or (self.policy.mutates and call.wrote):
                    raise
            del call.trailers[trailers:]
            call.audited = self.policy.audited  # its record was rolled back too
            await asyncio.sleep(0.05)

    async def _once(
        self, call: Call, key: str, request: Message, context: Context, handler: Callable[..., Any],
        reply_type: type[Message],
    ) -> Message:  # fmt: skip
        """Runs the handler at most once for its idempotency key."""
        keys = self.guard.idempotency
        assert keys is not None
        loop = asyncio.get_running_loop()
        seconds = LONGEST if call.deadline is None else min(LONGEST, max(call.deadline - loop.time(), 0.0))
        # Two members of an organisation must not get each other's answers, which may hold secrets.
        scope = f"{call.principal.org_id}/{call.principal.user_id}" if call.authenticated else call.address
        # Deterministic bytes: two serialisations of equal messages hash alike.
        body = request.SerializeToString(deterministic=True)
        claim = await keys.claim(scope, key, self.method, body, call.request_id)
        call.request_id, call.arrived_ms = claim.request_id, ids.milliseconds(claim.request_id)
        call.repeatable = _REPEATABLE
        call.trailers[0] = ("mercat-request-id", claim.request_id)
        if claim.answer is not None:
            call.trailers = [*claim.answer.trailers, ("idempotent-replayed", "true")]
            if claim.answer.error is not None:
                raise claim.answer.error
            return reply_type.FromString(claim.answer.body)
        try:
            async with asyncio.timeout(seconds):
                reply: Message = await self._patiently(call, handler, request, context)
        except MercatError as e:
            await keys.answer(claim, Answer(b"", e, _plain(call.trailers)))
            raise
        except (Exception, asyncio.CancelledError):
            await asyncio.shield(keys.answer(claim, Answer(b"", Internal(""), [])))
            raise
        await keys.answer(claim, Answer(reply.SerializeToString(), None, _plain(call.trailers)))
        return reply

    def unary_stream(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps a unary-stream method."""

        async def call_it(request: Message, context: Context) -> AsyncIterator[Message]:
            call: Call | None = None
            told = False
            try:
                call, metadata = await self.admit(context)
                credential = credential_of(metadata)
                validate(request)
                # A caller who leaves ends the handler now, not when somebody collects it.
                async with aclosing(handler(request, context)) as messages:
                    async for message in messages:
                        if credential:
                            await self._admit_still(call, credential)
                        if not told:  # what is known by now is said at the beginning too
                            told = True
                            context.set_trailing_metadata(tuple(call.trailers))
                        yield message
                context.set_trailing_metadata(tuple(call.trailers))
            except (Exception, asyncio.CancelledError) as e:
                await self.fail(context, call, e)
                return
            tracing.end(call.span, "OK")
            CALLS.labels(self.method, "OK").inc()

        return call_it

    def stream_unary(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps a stream-unary method; each message is validated as it arrives."""

        async def call_it(requests: AsyncIterator[Message], context: Context) -> Message | None:
            call: Call | None = None
            try:
                call, _ = await self.admit(context)
                reply: Message = await handler(_validated(requests), context)
                context.set_trailing_metadata(tuple(call.trailers))
            except (Exception, asyncio.CancelledError) as e:
                await self.fail(context, call, e)
                return None
            tracing.end(call.span, "OK")
            CALLS.labels(self.method, "OK").inc()
            return reply

        return call_it

    def stream_stream(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps a method that streams both ways. Its messages are calls of their own, so the handler validates each
        (None is one that could not be read), and a stream outlives its credential: who calls is asked for each."""

        async def call_it(requests: AsyncIterator[Message | None], context: Context) -> AsyncIterator[Message]:
            call: Call | None = None
            try:
                call, metadata = await self.admit(context)
                async for message in handler(self._still_admitted(requests, call, credential_of(metadata)), context):
                    yield message
                context.set_trailing_metadata(tuple(call.trailers))
            except (Exception, asyncio.CancelledError) as e:
                await self.fail(context, call, e)
                return
            tracing.end(call.span, "OK")
            CALLS.labels(self.method, "OK").inc()

        return call_it

    async def _still_admitted(
        self, requests: AsyncIterator[Message | None], call: Call, credential: str
    ) -> AsyncIterator[Message | None]:
        async for request in requests:
            if credential:
                await self._admit_still(call, credential)
            yield request

    async def _admit_still(self, call: Call, credential: str) -> None:
        """A stream outlives its credential. Raises MercatError when it does not open this method any more."""
        known = self.guard.principals.cached(credential)
        if known is call.principal:
            return
        call.principal = known if known is not None else await self.guard.principals.resolve(credential)
        if call.principal.HasField("rules"):
            key_rules.check_address(call.principal.rules, call.address)
        if self.policy.access == policy_pb2.ACCESS_ACCOUNT:
            self._authorise(call)


async def _validated(requests: AsyncIterator[Message]) -> AsyncIterator[Message]:
    async for request in requests:
        validate(request)
        yield request


def _plain(trailers: Sequence[tuple[str, str | bytes]]) -> list[tuple[str, str]]:
    return [(k, v) for k, v in trailers if isinstance(v, str)]

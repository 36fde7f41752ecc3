"""The call under way: who makes it, its id, and what its reply's trailers will carry."""

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message
from grpc import aio
from mercat.auth.v1 import auth_pb2
from opentelemetry.trace import Span

from services.common.errors import CredentialMissing

Context = aio.ServicerContext[Any, Any]
ANONYMOUS = auth_pb2.Principal()
ROLE_NAMES = {auth_pb2.ROLE_CONSUMER: "consumer", auth_pb2.ROLE_PUBLISHER: "publisher", auth_pb2.ROLE_ADMIN: "admin"}


@dataclass(slots=True)
class Call:
    """One call. `arrived_ms` is the time inside its id, milliseconds since 1970. `deadline` is on the event loop's
    clock, seconds; None when the caller set none. `fresh`: with `cache-control: no-cache`, the answer must be a new
    one. `wrote`: something of it may be stored already. `repeatable`: for how many seconds it may be made again under
    the same id. `tags`: what its caller set, in the order of their names. For the audit log:
    `resource`, what it is about, `request`, what it asks, `change`, what was before and after, and `actor`, the user
    and the organisation where they are not the caller."""

    request_id: str
    method: str
    arrived_ms: int
    principal: auth_pb2.Principal = field(default_factory=lambda: ANONYMOUS)
    address: str = ""
    user_agent: str = ""
    deadline: float | None = None
    traceparent: str = ""
    audited: bool = False
    fresh: bool = False
    wrote: bool = False
    repeatable: int = 0
    tags: tuple[tuple[str, str], ...] = ()
    resource: tuple[str, str] = ("", "")
    request: Message | None = None
    change: tuple[Message | None, Message | None] = (None, None)
    actor: tuple[str, str] | None = None
    span: Span | None = None
    trailers: list[tuple[str, str | bytes]] = field(default_factory=list)

    @property
    def authenticated(self) -> bool:
        return bool(self.principal.user_id)


_current: ContextVar[Call] = ContextVar("mercat_call")


def current() -> Call:
    """The call under way. Raises LookupError outside of one."""
    return _current.get()


def maybe_current() -> Call | None:
    return _current.get(None)


def enter(call: Call) -> None:
    """Makes `call` the current one of this task; each call runs in a task of its own, so nothing need be undone."""
    _current.set(call)


def caller() -> auth_pb2.Principal:
    """Who calls. Raises CredentialMissing for an anonymous caller."""
    call = _current.get()
    if not call.principal.user_id:
        raise CredentialMissing("this call needs an API key or an access token: send `authorization: Bearer …`")
    return call.principal

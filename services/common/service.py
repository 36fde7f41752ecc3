"""What a service is to the process that hosts it, and what the process gives it."""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis

from services.common.clock import Clock
from services.common.db import Database
from services.common.events import Events
from services.common.limits import Limiter
from services.common.rpc.channels import InternalChannel
from services.common.rpc.pipeline import Guard
from services.common.rpc.principals import Principals
from services.common.rpc.server import Registration, Server
from services.common.settings import Settings

Task = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Deps:
    """What the process gives a service's `build`. `database` is the service's own schema, migrated; `control` reaches
    the services of the control process."""

    settings: Settings
    database: Database
    events: Events
    redis: "Redis"
    limiter: Limiter
    principals: Principals
    control: InternalChannel
    clock: Clock
    worker_id: str


@dataclass
class Service:
    """What `build` answers: servicers, tasks that run for ever (one that ends stops the process), what to do last."""

    name: str
    registrations: list[Registration] = field(default_factory=list)
    raw: list[Callable[[Server, Guard], None]] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    close: Callable[[], Awaitable[None]] | None = None

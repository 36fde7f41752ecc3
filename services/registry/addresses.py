"""Names of models: those that look like another of their publisher's, and addresses that lead to a model that moved."""

from datetime import UTC, datetime, timedelta

import asyncpg

from services.common.clock import Clock
from services.common.db import Connection
from services.common.errors import AlreadyExists, Violation
from services.registry.store import Store

_LOOKS_ALIKE = "models_skeleton"  # the index that only one of them gets into


class ModelExists(AlreadyExists, reason="MODEL_EXISTS"): ...


class ModelNameTooSimilar(AlreadyExists, reason="MODEL_NAME_TOO_SIMILAR"):
    """It looks like that of another model of the same publisher."""


class ModelNameQuarantined(AlreadyExists, reason="MODEL_NAME_QUARANTINED"):
    """The address leads to a model that moved away, and what calls it must not get another."""


def taken(error: asyncpg.UniqueViolationError, whose: str, name: str) -> AlreadyExists:
    """What to say of a name that the database refused. `whose`: "you have" or "acme has"."""
    if error.constraint_name == _LOOKS_ALIKE:
        problem = Violation("name", "looks like that of another model there; choose one that cannot be mistaken for it")
        return ModelNameTooSimilar(f"{whose} a model whose name looks like {name}", violations=[problem])
    problem = Violation("name", "is the name of a model there already; give another one")
    return ModelExists(f"{whose} a model {name} already", violations=[problem])


class Addresses:
    """Whoever gives a model an address takes it here, after the row has it."""

    def __init__(self, store: Store, clock: Clock, kept_days: int) -> None:
        self._store = store
        self._clock = clock
        self._kept = kept_days

    async def take(self, connection: Connection, publisher: str, name: str, model_id: str) -> None:
        """Raises ModelNameQuarantined: another model left this address within so many days."""
        since = self._clock.now() - timedelta(days=self._kept) if self._kept else datetime.min.replace(tzinfo=UTC)
        if not await self._store.take_address(connection, publisher, name, model_id, since):
            problem = Violation("name", "leads to a model that has moved, for whoever calls it; choose another")
            raise ModelNameQuarantined(f"{publisher}/{name} is in quarantine", violations=[problem])

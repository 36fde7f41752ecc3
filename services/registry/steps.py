"""Takes versions from state to state, with what follows for their models: which is the default, what is told."""

from datetime import datetime
from typing import Any

from mercat.event.v1 import event_pb2
from mercat.registry.v1 import registry_pb2, visibility_pb2

from services.common import outbox
from services.common.clock import Clock
from services.common.db import Connection
from services.common.errors import NotFound
from services.registry import lifecycle, references
from services.registry.lifecycle import Actor, Review, Standing
from services.registry.store import Row, Store

# Those that change what others see of the model, or which of its versions is the default.
PUBLIC = frozenset({"publish", "deprecate", "retire", "quarantine", "release", "yank", "unyank", "delete"})


# Those that leave the coming of a sunset to who notes it, and tells of it.
_AS_NOTED = frozenset({"retire", "submit", "approve", "reject"})


class VersionNotFound(NotFound, reason="VERSION_NOT_FOUND"): ...


def standing_of(row: Row, now: datetime | None = None) -> Standing:
    """As it is noted, or with `now` as it is: retired from its sunset on."""
    state, gone = int(row["state"]), registry_pb2.VERSION_STATE_DELETED
    if now is not None and lifecycle.is_retired(state, row["sunset_at"], now):
        state = registry_pb2.VERSION_STATE_RETIRED
    before = row["deleted_from" if state == gone else "quarantined_from"]
    return Standing(
        state, before, Actor(row["yanked_by"]) if row["yanked_by"] else None, Review(row["review"]),
        row["visibility"] == visibility_pb2.VISIBILITY_PRIVATE,
    )  # fmt: skip


def told(row: Row, model: Row) -> dict[str, Any]:
    """What every event about a version says."""
    return {
        "version_id": row["id"], "model": f"{model['publisher']}/{model['name']}", "version": row["version"],
        "org_id": model["org_id"],
    }  # fmt: skip


class Steps:
    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def lock(self, c: Connection, model: Row, number: str, step: str) -> Row:
        """The version, of which nobody else takes a step until the transaction ends. Raises VersionNotFound."""
        if step in PUBLIC:  # or two versions published at once would each miss the other, and one be the default
            await self._store.touch_model(c, model["id"], self._clock.now())
        row = await self._store.get_version(c, model["id"], number, lock=True)
        if row is None:
            raise VersionNotFound(f"{model['publisher']}/{model['name']} has no version {number}")
        return row

    async def take(
        self, c: Connection, model: Row, row: Row, step: str, actor: Actor, *, note: str | None = None, reason: str = ""
    ) -> Row:
        """The version after a step. `note`: for its owner, None: as it was; `reason`: of a yank. Raises WrongState,
        StepDenied."""
        now = self._clock.now()
        as_noted = step in _AS_NOTED
        to = lifecycle.advance(step, standing_of(row, None if as_noted else now), actor)
        await self._store.move_version(
            c, row["id"], state=to.state, before=to.before, yanked_by=to.yanked.value if to.yanked else "",
            review=to.review.value, yank_reason=reason if step == "yank" else None, review_note=note, now=now,
        )  # fmt: skip
        if step in PUBLIC and (step == "publish" or row["state"] in lifecycle.SERVED):
            latest = references.newest(await self._store.published_versions(c, model["id"]))
            await self._store.set_latest(c, model["id"], latest, now)
            name = f"{model['publisher']}/{model['name']}"
            await outbox.add(c, event_pb2.ModelChanged(model_id=model["id"], model=name, published=bool(latest)))
        moved = await self._store.get_version(c, model["id"], row["version"])
        assert moved is not None
        return moved

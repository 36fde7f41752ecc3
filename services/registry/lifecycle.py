"""A version's life: which step leads from which state to which, and who may take it."""

from collections.abc import Set
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum

from mercat.registry.v1 import registry_pb2

from services.common.errors import FailedPrecondition, PermissionDenied

V = registry_pb2


class Actor(Enum):
    OWNER = "owner"
    ADMIN = "admin"
    PLATFORM = "platform"  # validation, the crashes of engines, and time


@dataclass(frozen=True)
class Standing:
    """Where a version is. `before`: the state that a quarantine or a deletion ended, and to which it goes back.
    `yanked`: who took it back, beside whatever state it is in."""

    state: int
    before: int | None = None
    yanked: Actor | None = None


@dataclass(frozen=True)
class Step:
    """From one of `sources` to `target`, by one of `actors`. A target of None: the state that the version was in
    before, or with `stays` the one that it is in."""

    sources: frozenset[int]
    target: int | None
    actors: frozenset[Actor]
    stays: bool = False


def _step(sources: Set[int], target: int | None, *actors: Actor, stays: bool = False) -> Step:
    return Step(frozenset(sources), target, frozenset(actors), stays)


# What can be called by somebody who names it, unless its sunset has come.
CALLABLE: frozenset[int] = frozenset({V.VERSION_STATE_PUBLISHED, V.VERSION_STATE_DEPRECATED})
# What others than the owner see.
SEEN = CALLABLE | {V.VERSION_STATE_RETIRED}
_OUT = CALLABLE | {V.VERSION_STATE_QUARANTINED}  # what was published and is not over

STEPS = {
    "accept": _step({V.VERSION_STATE_VALIDATING}, V.VERSION_STATE_DRAFT, Actor.PLATFORM),
    "refuse": _step({V.VERSION_STATE_VALIDATING}, V.VERSION_STATE_REFUSED, Actor.PLATFORM),
    "submit": _step({V.VERSION_STATE_DRAFT}, V.VERSION_STATE_REVIEW, Actor.OWNER),
    "approve": _step({V.VERSION_STATE_REVIEW}, V.VERSION_STATE_APPROVED, Actor.ADMIN),
    "reject": _step({V.VERSION_STATE_REVIEW}, V.VERSION_STATE_DRAFT, Actor.ADMIN),
    "publish": _step({V.VERSION_STATE_APPROVED}, V.VERSION_STATE_PUBLISHED, Actor.OWNER),
    "deprecate": _step(CALLABLE, V.VERSION_STATE_DEPRECATED, Actor.OWNER),
    "retire": _step({V.VERSION_STATE_DEPRECATED}, V.VERSION_STATE_RETIRED, Actor.PLATFORM),
    "quarantine": _step(CALLABLE, V.VERSION_STATE_QUARANTINED, Actor.PLATFORM),
    "release": _step({V.VERSION_STATE_QUARANTINED}, None, Actor.ADMIN),
    "yank": _step(_OUT, None, Actor.OWNER, Actor.ADMIN, stays=True),
    "unyank": _step(_OUT, None, Actor.OWNER, Actor.ADMIN, stays=True),
    "delete": _step(
        {V.VERSION_STATE_REFUSED, V.VERSION_STATE_DRAFT, V.VERSION_STATE_APPROVED}, V.VERSION_STATE_DELETED, Actor.OWNER
    ),
    "undelete": _step({V.VERSION_STATE_DELETED}, None, Actor.OWNER),
}
_PARKED = {V.VERSION_STATE_QUARANTINED, V.VERSION_STATE_DELETED}
_NEXT: dict[int, str] = {
    V.VERSION_STATE_VALIDATING: "it is still being validated",
    V.VERSION_STATE_REFUSED: "its artifact was refused; push a corrected one as a new version",
    V.VERSION_STATE_DRAFT: "submit it for review first",
    V.VERSION_STATE_REVIEW: "it waits for a reviewer",
    V.VERSION_STATE_APPROVED: "publish it first",
    V.VERSION_STATE_QUARANTINED: "it kept bringing its engine down; push a corrected one as a new version",
    V.VERSION_STATE_DELETED: "its owner gave it up",
    V.VERSION_STATE_RETIRED: "its sunset has come; push a new version",
}


class WrongState(FailedPrecondition, reason="VERSION_STATE"):
    """The step does not start from the state the version is in."""


class StepDenied(PermissionDenied, reason="VERSION_STEP_DENIED"):
    """The step is somebody else's."""


def name_of(state: int) -> str:
    """`VERSION_STATE_DRAFT` as a person writes it: draft."""
    return V.VersionState.Name(state).removeprefix("VERSION_STATE_").lower()  # type: ignore[arg-type]


def advance(step: str, standing: Standing, actor: Actor) -> Standing:
    """Where the version is after a step. Raises WrongState, saying what to do instead, and StepDenied."""
    s, state = STEPS[step], standing.state
    if actor not in s.actors:
        raise StepDenied(f"to {step} a version is not for the {actor.value}")
    told = {"state": name_of(state), "step": step}
    if state not in s.sources:
        hint = f"; {_NEXT[state]}" if state in _NEXT else ""
        raise WrongState(f"cannot {step} a version that is {name_of(state)}{hint}", metadata=told)
    if s.stays:
        return _yanked(step, standing, actor, told)
    if s.target is None:
        return replace(standing, state=standing.before or V.VERSION_STATE_PUBLISHED, before=None)
    return replace(standing, state=s.target, before=state if s.target in _PARKED else None)


def _yanked(step: str, standing: Standing, actor: Actor, told: dict[str, str]) -> Standing:
    if (standing.yanked is not None) == (step == "yank"):
        said = "was yanked already" if standing.yanked else "is not yanked"
        raise WrongState(f"cannot {step} a version that {said}", metadata=told)
    if standing.yanked is Actor.ADMIN and actor is Actor.OWNER:
        raise StepDenied("a platform admin has yanked this version; only one can take that back")
    return replace(standing, yanked=actor if step == "yank" else None)


def undeletable(standing: Standing, deleted_at: datetime | None, now: datetime, kept: timedelta) -> None:
    """Raises WrongState for a version that was deleted for as long as files are `kept`."""
    if standing.state == V.VERSION_STATE_DELETED and (deleted_at is None or now - deleted_at >= kept):
        told = {"state": name_of(standing.state), "step": "undelete"}
        raise WrongState("its files are gone; push it as a new version", metadata=told)


def is_retired(state: int, sunset_at: datetime | None, now: datetime) -> bool:
    """Whether calls are refused since the sunset has come, whoever has noted that down yet."""
    due = state == V.VERSION_STATE_DEPRECATED and sunset_at is not None and sunset_at <= now
    return state == V.VERSION_STATE_RETIRED or due

"""A version's life: which step leads from which state to which, and who may take it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from mercat.registry.v1 import registry_pb2

from services.common.errors import FailedPrecondition

V = registry_pb2


class Actor(Enum):
    OWNER = "the model's owner"
    ADMIN = "a platform admin"


@dataclass(frozen=True)
class Step:
    """From one of `sources` to `target`, by `actor`."""

    sources: frozenset[int]
    target: int
    actor: Actor


STEPS = {
    "submit": Step(frozenset({V.VERSION_STATE_DRAFT}), V.VERSION_STATE_REVIEW, Actor.OWNER),
    "approve": Step(frozenset({V.VERSION_STATE_REVIEW}), V.VERSION_STATE_APPROVED, Actor.ADMIN),
    "reject": Step(frozenset({V.VERSION_STATE_REVIEW}), V.VERSION_STATE_DRAFT, Actor.ADMIN),
    "publish": Step(frozenset({V.VERSION_STATE_APPROVED}), V.VERSION_STATE_PUBLISHED, Actor.OWNER),
    "release": Step(frozenset({V.VERSION_STATE_QUARANTINED}), V.VERSION_STATE_PUBLISHED, Actor.ADMIN),
    "deprecate": Step(frozenset({V.VERSION_STATE_PUBLISHED}), V.VERSION_STATE_DEPRECATED, Actor.OWNER),
    "delete": Step(
        frozenset({V.VERSION_STATE_REFUSED, V.VERSION_STATE_DRAFT, V.VERSION_STATE_APPROVED}),
        V.VERSION_STATE_DELETED,
        Actor.OWNER,
    ),
}
CALLABLE = frozenset({V.VERSION_STATE_PUBLISHED, V.VERSION_STATE_DEPRECATED})
_NEXT: dict[int, str] = {
    V.VERSION_STATE_VALIDATING: "it is still being validated",
    V.VERSION_STATE_REFUSED: "its artifact was refused; push a corrected one as a new version",
    V.VERSION_STATE_DRAFT: "submit it for review first",
    V.VERSION_STATE_REVIEW: "it waits for a reviewer",
    V.VERSION_STATE_APPROVED: "publish it first",
    V.VERSION_STATE_QUARANTINED: "it kept bringing its engine down; push a corrected one as a new version",
    V.VERSION_STATE_DELETED: "its owner gave it up",
}


class WrongState(FailedPrecondition, reason="VERSION_STATE"):
    """The step does not start from the state the version is in."""


def name_of(state: int) -> str:
    """`VERSION_STATE_DRAFT` as a person writes it: draft."""
    return V.VersionState.Name(state).removeprefix("VERSION_STATE_").lower()  # type: ignore[arg-type]


def advance(step: str, state: int) -> int:
    """The state after a step. Raises WrongState, saying what to do instead."""
    s = STEPS[step]
    if state not in s.sources:
        hint = f"; {_NEXT[state]}" if state in _NEXT else ""
        raise WrongState(
            f"cannot {step} a version that is {name_of(state)}{hint}", metadata={"state": name_of(state), "step": step}
        )
    return s.target


def undeleted(state: int, before: int | None, deleted_at: datetime | None, now: datetime, kept: timedelta) -> int:
    """The state that a deleted version goes back to. Raises WrongState for one that is not deleted, or was for longer
    than `kept`."""
    told = {"state": name_of(state), "step": "undelete"}
    if state != V.VERSION_STATE_DELETED or before is None or deleted_at is None:
        raise WrongState(f"cannot undelete a version that is {name_of(state)}", metadata=told)
    if now - deleted_at >= kept:
        raise WrongState("its files are gone; push it as a new version", metadata=told)
    return before

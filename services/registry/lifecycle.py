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


class Review(Enum):
    """What became of a version's review."""

    NONE = V.REVIEW_STANDING_UNSPECIFIED
    ASKED = V.REVIEW_STANDING_REQUESTED
    PASSED = V.REVIEW_STANDING_PASSED


@dataclass(frozen=True)
class Standing:
    """Where a version is. `before`: the state that a quarantine or a deletion ended, and to which it goes back.
    `yanked`: who took it back, and `review`: both beside whatever state it is in. `private`: its model is."""

    state: int
    before: int | None = None
    yanked: Actor | None = None
    review: Review = Review.NONE
    private: bool = False

    @property
    def unseen(self) -> bool:
        """Whether nobody but its organisation can have seen it."""
        return self.private and self.review is not Review.PASSED


@dataclass(frozen=True)
class Step:
    """From one of `sources`, or of a version that is unseen also of `unseen`, to `target`, by one of `actors`. A target
    of None: the state that the version was in before, or with `stays` the one that it is in. `beside`: states that it
    stays in while its review goes on."""

    sources: frozenset[int]
    target: int | None
    actors: frozenset[Actor]
    stays: bool = False
    unseen: frozenset[int] = frozenset()
    beside: frozenset[int] = frozenset()


def _step(
    sources: Set[int], target: int | None, *actors: Actor, stays: bool = False, unseen: Set[int] = frozenset(),
    beside: Set[int] = frozenset(),
) -> Step:  # fmt: skip
    return Step(frozenset(sources), target, frozenset(actors), stays, frozenset(unseen), frozenset(beside))


# What can be called by somebody who names it, unless its sunset has come.
CALLABLE: frozenset[int] = frozenset({V.VERSION_STATE_PUBLISHED, V.VERSION_STATE_DEPRECATED})
# What others than the owner see.
SEEN = CALLABLE | {V.VERSION_STATE_RETIRED}
_OUT = CALLABLE | {V.VERSION_STATE_QUARANTINED}  # what was published and is not over
SERVED = _OUT | {V.VERSION_STATE_RETIRED}  # what others see, or may see again, unless the model is private

STEPS = {
    "accept": _step({V.VERSION_STATE_VALIDATING}, V.VERSION_STATE_DRAFT, Actor.PLATFORM),
    "refuse": _step({V.VERSION_STATE_VALIDATING}, V.VERSION_STATE_REFUSED, Actor.PLATFORM),
    "submit": _step({V.VERSION_STATE_DRAFT}, V.VERSION_STATE_REVIEW, Actor.OWNER, beside=SERVED),
    "approve": _step({V.VERSION_STATE_REVIEW}, V.VERSION_STATE_APPROVED, Actor.ADMIN, beside=SERVED),
    "reject": _step({V.VERSION_STATE_REVIEW}, V.VERSION_STATE_DRAFT, Actor.ADMIN, beside=SERVED),
    "publish": _step(
        {V.VERSION_STATE_APPROVED},
        V.VERSION_STATE_PUBLISHED,
        Actor.OWNER,
        unseen={V.VERSION_STATE_DRAFT, V.VERSION_STATE_REVIEW},
    ),
    "deprecate": _step(CALLABLE, V.VERSION_STATE_DEPRECATED, Actor.OWNER),
    "retire": _step({V.VERSION_STATE_DEPRECATED}, V.VERSION_STATE_RETIRED, Actor.PLATFORM),
    "quarantine": _step(CALLABLE, V.VERSION_STATE_QUARANTINED, Actor.PLATFORM),
    "release": _step({V.VERSION_STATE_QUARANTINED}, None, Actor.ADMIN),
    "yank": _step(_OUT, None, Actor.OWNER, Actor.ADMIN, stays=True),
    "unyank": _step(_OUT, None, Actor.OWNER, Actor.ADMIN, stays=True),
    "delete": _step(
        {V.VERSION_STATE_REFUSED, V.VERSION_STATE_DRAFT, V.VERSION_STATE_APPROVED},
        V.VERSION_STATE_DELETED,
        Actor.OWNER,
        unseen=SERVED,
    ),
    "undelete": _step({V.VERSION_STATE_DELETED}, None, Actor.OWNER),
}
# What each part of a review needs, and what it leads to.
_REVIEWS = {
    "submit": (Review.NONE, Review.ASKED), "approve": (Review.ASKED, Review.PASSED),
    "reject": (Review.ASKED, Review.NONE),
}  # fmt: skip
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
    if state in s.beside:
        return _reviewed(step, standing, told)
    if state not in s.sources | (s.unseen if standing.unseen else frozenset()):
        hint = f"; {_NEXT[state]}" if state in _NEXT else ""
        raise WrongState(f"cannot {step} a version that is {name_of(state)}{hint}", metadata=told)
    if s.stays:
        return _yanked(step, standing, actor, told)
    if s.target is None:
        return replace(standing, state=standing.before or V.VERSION_STATE_PUBLISHED, before=None)
    review = _REVIEWS[step][1] if step in _REVIEWS else standing.review
    if step == "delete" and state in SERVED:  # its model may be public by the time that it comes back
        return replace(standing, state=s.target, before=V.VERSION_STATE_DRAFT, review=Review.NONE)
    return replace(standing, state=s.target, before=state if s.target in _PARKED else None, review=review)


def may(step: str, standing: Standing, actor: Actor) -> bool:
    """Whether the step can be taken."""
    try:
        advance(step, standing, actor)
    except (WrongState, StepDenied):
        return False
    return True


def _reviewed(step: str, standing: Standing, told: dict[str, str]) -> Standing:
    needs, to = _REVIEWS[step]
    if standing.review is not needs:
        said = {
            Review.NONE: "was not submitted", Review.ASKED: "waits for a reviewer", Review.PASSED: "has been approved"
        }[standing.review]  # fmt: skip
        raise WrongState(f"cannot {step} a version that {said}", metadata=told)
    return replace(standing, review=to)


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

"""Which step leads where: every step from every state, by everybody, yanked and not, reviewed and not, of private
models and others."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from mercat.registry.v1 import registry_pb2 as r

from services.registry.lifecycle import (
    CALLABLE,
    SEEN,
    SERVED,
    STEPS,
    Actor,
    Review,
    Standing,
    StepDenied,
    WrongState,
    advance,
    is_retired,
    name_of,
    undeletable,
)

# step: who, and from where to where.
LIFE: dict[str, tuple[str, dict[str, str]]] = {
    "accept": ("platform", {"validating": "draft"}),
    "refuse": ("platform", {"validating": "refused"}),
    "submit": ("owner", {"draft": "review"}),
    "approve": ("admin", {"review": "approved"}),
    "reject": ("admin", {"review": "draft"}),
    "publish": ("owner", {"approved": "published"}),
    "deprecate": ("owner", {"published": "deprecated", "deprecated": "deprecated"}),
    "retire": ("platform", {"deprecated": "retired"}),
    "quarantine": ("platform", {"published": "quarantined", "deprecated": "quarantined"}),
    "release": ("admin", {"quarantined": "before"}),
    "yank": ("owner admin", {s: s for s in ("published", "deprecated", "quarantined")}),
    "unyank": ("owner admin", {s: s for s in ("published", "deprecated", "quarantined")}),
    "delete": ("owner", dict.fromkeys(("refused", "draft", "approved"), "deleted")),
    "undelete": ("owner", {"deleted": "before"}),
}
# The same of a version that nobody but its organisation can have seen: its model is private, and it was never approved.
UNSEEN: dict[str, dict[str, str]] = {
    "publish": {"draft": "published", "review": "published"},
    "delete": dict.fromkeys(("published", "deprecated", "retired", "quarantined"), "deleted"),
}
# What a review needs beside the states of what is in service, and what comes of it.
BESIDE = {
    "submit": (Review.NONE, Review.ASKED), "approve": (Review.ASKED, Review.PASSED),
    "reject": (Review.ASKED, Review.NONE),
}  # fmt: skip
STATES = [v for v in r.VersionState.values() if v]
BEFORE = {r.VERSION_STATE_QUARANTINED: r.VERSION_STATE_DEPRECATED, r.VERSION_STATE_DELETED: r.VERSION_STATE_REFUSED}
YANKED = (None, Actor.OWNER, Actor.ADMIN)


def test_the_table_has_every_step() -> None:
    assert set(LIFE) == set(STEPS)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("state", STATES, ids=name_of)
def test_every_step_from_every_state(step: str, state: int) -> None:
    who, _ = LIFE[step]
    for actor, yanked, review, private in product(Actor, YANKED, Review, (False, True)):
        at = Standing(state, BEFORE.get(state), yanked, review, private)
        case = (step, name_of(state), actor, yanked, review, private)
        moves = LIFE[step][1] | (UNSEEN.get(step, {}) if private and review is not Review.PASSED else {})
        if actor.value not in who.split():
            with pytest.raises(StepDenied):
                advance(step, at, actor)
            continue
        if step in BESIDE and state in SERVED:
            if review is BESIDE[step][0]:
                assert advance(step, at, actor) == replace(at, review=BESIDE[step][1]), case
            else:
                with pytest.raises(WrongState) as caught:
                    advance(step, at, actor)
                assert caught.value.metadata == {"state": name_of(state), "step": step}, case
            continue
        target = moves.get(name_of(state))
        wrong = (step == "yank" and yanked is not None) or (step == "unyank" and yanked is None)
        if target is None or wrong:
            with pytest.raises(WrongState) as caught:
                advance(step, at, actor)
            assert caught.value.metadata == {"state": name_of(state), "step": step}, case
            continue
        if step == "unyank" and yanked is Actor.ADMIN and actor is Actor.OWNER:
            with pytest.raises(StepDenied):
                advance(step, at, actor)
            continue
        to = advance(step, at, actor)
        assert to.state == (
            BEFORE[state] if target == "before" else r.VersionState.Value(f"VERSION_STATE_{target.upper()}")
        ), case
        assert to.yanked == {"yank": actor, "unyank": None}.get(step, yanked), case
        parked = to.state in BEFORE
        served = step == "delete" and state in SERVED  # it comes back as what has to be reviewed
        assert to.before == ((r.VERSION_STATE_DRAFT if served else at.before or state) if parked else None), case
        assert to.review == (Review.NONE if served else BESIDE[step][1] if step in BESIDE else review), case


def test_what_is_parked_comes_back_as_it_was() -> None:
    """A version that was yanked and deprecated when its engine fell is both again when it is released."""
    for step, back, actors, states in (
        ("quarantine", "release", (Actor.PLATFORM, Actor.ADMIN), CALLABLE),
        ("delete", "undelete", (Actor.OWNER, Actor.OWNER), STEPS["delete"].sources),
    ):  # fmt: skip
        for state, yanked in product(states, YANKED):
            at = Standing(state, None, yanked)
            assert advance(back, advance(step, at, actors[0]), actors[1]) == at


def test_what_others_call_and_see() -> None:
    assert {name_of(s) for s in CALLABLE} == {"published", "deprecated"}
    assert {name_of(s) for s in SEEN} == {"published", "deprecated", "retired"}


NOW = datetime(2026, 1, 1, tzinfo=UTC)
WEEK = timedelta(days=7)


@pytest.mark.parametrize("state", STATES, ids=name_of)
def test_files_that_are_gone_do_not_come_back(state: int) -> None:
    for since, gone in ((timedelta(), False), (WEEK - timedelta(microseconds=1), False), (WEEK, True)):
        at = Standing(state, BEFORE.get(state))
        if gone and state == r.VERSION_STATE_DELETED:
            with pytest.raises(WrongState) as caught:
                undeletable(at, NOW - since, NOW, WEEK)
            assert caught.value.metadata == {"state": "deleted", "step": "undelete"}
        else:
            undeletable(at, NOW - since, NOW, WEEK)


@pytest.mark.parametrize("state", STATES, ids=name_of)
def test_a_deprecated_version_is_retired_from_its_sunset_on(state: int) -> None:
    tick = timedelta(microseconds=1)
    due = {"deprecated": (False, True, True), "retired": (True, True, True)}.get(name_of(state), (False,) * 3)
    assert tuple(is_retired(state, NOW + by, NOW) for by in (tick, timedelta(), -tick)) == due
    assert is_retired(state, None, NOW) == (state == r.VERSION_STATE_RETIRED)

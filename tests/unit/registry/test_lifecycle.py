"""Which step leads where, for every step and every state."""

from datetime import UTC, datetime, timedelta

import pytest
from mercat.registry.v1 import registry_pb2 as r

from services.registry.lifecycle import CALLABLE, STEPS, WrongState, advance, name_of, undeleted

LIFE = {
    ("submit", "draft"): "review",
    ("approve", "review"): "approved",
    ("reject", "review"): "draft",
    ("publish", "approved"): "published",
    ("release", "quarantined"): "published",
    ("deprecate", "published"): "deprecated",
    ("delete", "refused"): "deleted",
    ("delete", "draft"): "deleted",
    ("delete", "approved"): "deleted",
}
STATES = [v for v in r.VersionState.values() if v]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("state", STATES, ids=name_of)
def test_every_step_from_every_state(step: str, state: int) -> None:
    target = LIFE.get((step, name_of(state)))
    if target is not None:
        assert name_of(advance(step, state)) == target
        return
    with pytest.raises(WrongState) as caught:
        advance(step, state)
    assert caught.value.metadata == {"state": name_of(state), "step": step}


def test_only_what_was_published_can_be_called() -> None:
    assert {name_of(s) for s in CALLABLE} == {"published", "deprecated"}


NOW = datetime(2026, 1, 1, tzinfo=UTC)
WEEK = timedelta(days=7)


def test_a_deleted_version_goes_back_to_what_it_was() -> None:
    for since in (timedelta(), WEEK - timedelta(microseconds=1)):
        assert undeleted(r.VERSION_STATE_DELETED, r.VERSION_STATE_APPROVED, NOW - since, NOW, WEEK) == (
            r.VERSION_STATE_APPROVED
        )


@pytest.mark.parametrize("state", STATES, ids=name_of)
def test_others_and_those_deleted_too_long_ago_do_not(state: int) -> None:
    since = NOW - WEEK
    with pytest.raises(WrongState) as caught:
        undeleted(state, r.VERSION_STATE_DRAFT, since, NOW, WEEK)
    assert caught.value.metadata == {"state": name_of(state), "step": "undelete"}

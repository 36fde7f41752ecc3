"""Which step leads where, for every step and every state."""

import pytest
from mercat.registry.v1 import registry_pb2 as r

from services.registry.lifecycle import CALLABLE, STEPS, WrongState, advance, name_of

LIFE = {
    ("submit", "draft"): "review",
    ("approve", "review"): "approved",
    ("reject", "review"): "draft",
    ("publish", "approved"): "published",
    ("release", "quarantined"): "published",
    ("deprecate", "published"): "deprecated",
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

"""How versions go out of use: announced, enforced, taken back; and what callers are told meanwhile."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp
from mercat.auth.v1 import audit_pb2
from mercat.inference.v1 import inference_pb2
from mercat.notification.v1 import webhooks_pb2 as w
from mercat.registry.v1 import registry_pb2 as r

from services.common.errors import MercatError, from_rpc_error
from tests import graphs
from tests.expect import fails, until
from tests.platform import Account, Platform

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def maker(platform: Platform) -> Account:
    return platform.publisher()


@pytest.fixture(scope="module")
def user(platform: Platform) -> Account:
    return platform.sign_up(credit=1_000_000_000)


@pytest.fixture
def pair(platform: Platform, maker: Account) -> str:
    """A model of two versions, 1.0.0 and 1.1.0, which answer differently."""
    model = platform.publish(maker, graphs.tiny())
    platform.publish(maker, graphs.tiny(seed=8), model.partition("/")[2], version="1.1.0")
    return model


def asked(model: str) -> inference_pb2.PredictRequest:
    tensor = inference_pb2.Tensor(name="x", datatype="FP32", shape=[1, 4], raw=bytes(16))
    return inference_pb2.PredictRequest(model=model, inputs=[tensor])


def told(person: Account, model: str) -> dict[str, str]:
    """The trailers of a call."""
    _, call = person.inference.Predict.with_call(asked(model))
    return {name: value for name, value in call.trailing_metadata() if isinstance(value, str)}


def refused(person: Account, model: str) -> MercatError | None:
    try:
        person.inference.Predict(asked(model))
    except grpc.RpcError as e:
        return from_rpc_error(e)
    return None


def reason(person: Account, model: str) -> str:
    error = refused(person, model)
    return error.reason if error else ""


def moves(maker: Account, model: str) -> list[tuple[str, str]]:
    """Of its aliases, from where to where, newest first."""
    entries = maker.audit.ListAuditEntries(audit_pb2.ListAuditEntriesRequest(page_size=200)).entries
    found = [json_format.MessageToDict(e.metadata) for e in entries if e.action.endswith("/SetAlias")]
    known = [m for m in found if m["request"]["model"] == model and "after" in m]
    return [(m["before"].get("version", ""), m["after"]["version"]) for m in known]


def hears(person: Account, kind: str) -> Iterator[w.StreamEventsResponse]:
    stream = person.webhooks.StreamEvents(w.StreamEventsRequest(event_types=[kind]), timeout=60)
    next(stream)  # from here on it hears
    return stream  # type: ignore[no-any-return]


def heard(stream: Iterator[w.StreamEventsResponse]) -> dict[str, Any]:
    return json.loads(next(m.event.body for m in stream if m.HasField("event")))["data"]  # type: ignore[no-any-return]


def ahead(span: timedelta) -> Timestamp:
    at = Timestamp()
    at.FromDatetime(datetime.now(UTC) + span)
    at.nanos = 0
    return at


def deprecate(maker: Account, model: str, version: str = "1.0.0", **fields: Any) -> r.Version:
    request = r.DeprecateVersionRequest(model=model, version=version, **fields)
    return maker.registry.DeprecateVersion(request).version  # type: ignore[no-any-return]


def post(platform: Platform, person: Account, model: str) -> httpx.Response:
    body = {"inputs": [{"name": "x", "data": [[0, 0, 0, 0]]}]}
    headers = {"authorization": f"Bearer {person.api_key}"}
    return httpx.post(f"{platform.rest}/v1/models/{model}:predict", json=body, headers=headers, timeout=20)


@pytest.mark.parametrize(
    ("successor", "problem"),
    [
        ("9.9.9", "is not published"),
        ("1.0.0", "itself"),
        ("nobody/nothing", "is not published"),
        (":stable", "must be"),
    ],
)
def test_a_successor_is_what_can_be_called(
    platform: Platform, maker: Account, pair: str, successor: str, problem: str
) -> None:
    error = fails(maker.registry.DeprecateVersion, r.DeprecateVersionRequest(
        model=pair, version="1.0.0", successor=pair + successor if successor.startswith(":") else successor
    ))  # fmt: skip
    assert [v.field for v in error.violations] == ["successor"]


def test_the_sunset_is_enforced(platform: Platform, maker: Account, user: Account, pair: str) -> None:
    """Before anything is charged, by a worker that has answered calls of it, naming what takes its place."""
    model = platform.publish(maker, graphs.tiny(), price={"requests": 1_000_000_000_000})
    exact = f"{model}@1.0.0"
    maker.registry.SetAlias(r.SetAliasRequest(model=model, alias="old", version="1.0.0"))
    fresh = platform.sign_up(credit=1_000_000_000)
    assert told(user, exact)["mercat-model-version"] == "1.0.0"
    past = fails(maker.registry.DeprecateVersion, r.DeprecateVersionRequest(
        model=model, version="1.0.0", sunset_at=ahead(-DAY)
    ))  # fmt: skip
    assert [v.field for v in past.violations] == ["sunset_at"]
    deprecate(maker, model, sunset_at=ahead(timedelta(seconds=6)), successor=f"{pair}@1.1.0")
    until(lambda: reason(user, exact) == "VERSION_RETIRED")
    before = fresh.balance()
    for reference in (exact, f"{model}:old"):
        error = refused(fresh, reference)
        assert error is not None
        assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "VERSION_RETIRED")
        assert error.metadata["successor"] == f"{pair}@1.1.0"
        assert error.message == f"{exact} is retired; call {pair}@1.1.0"
    assert fresh.balance() == before
    assert post(platform, fresh, exact).json()["error"]["details"][0]["reason"] == "VERSION_RETIRED"

    def version() -> r.Version:
        return user.registry.GetVersion(r.GetVersionRequest(model=model, version="1.0.0")).version  # type: ignore[no-any-return]

    until(lambda: version().state == r.VERSION_STATE_RETIRED)  # and everybody still sees what became of it
    for step, request in (
        (maker.registry.DeprecateVersion, r.DeprecateVersionRequest(model=model, version="1.0.0")),
        (maker.registry.YankVersion, r.YankVersionRequest(model=model, version="1.0.0", reason="late")),
        (maker.registry.SetAlias, r.SetAliasRequest(model=model, alias="older", version="1.0.0")),
    ):
        assert fails(step, request).reason == "VERSION_STATE"


def test_a_yanked_version_answers_who_names_it(platform: Platform, maker: Account, user: Account, pair: str) -> None:
    model = pair
    exact, alias = f"{model}@1.1.0", f"{model}:stable"
    maker.registry.SetAlias(r.SetAliasRequest(model=model, alias="stable", version="1.1.0"))
    until(lambda: told(user, alias)["mercat-model-version"] == "1.1.0")
    yank = r.YankVersionRequest(model=model, version="1.1.0", reason="trained on\nthe test set – sorry")
    assert fails(platform.publisher().registry.YankVersion, yank).reason == "MODEL_NOT_FOUND"
    made = maker.registry.YankVersion(yank).version
    assert (made.state, made.yank.reason, made.yank.by_admin) == (r.VERSION_STATE_PUBLISHED, yank.reason, False)
    until(lambda: told(user, model)["mercat-model-version"] == "1.0.0")
    until(lambda: reason(user, alias) == "VERSION_YANKED")
    until(lambda: "mercat-yanked" in told(user, exact))
    said = told(user, exact)
    assert (said["mercat-yanked"], said["mercat-model-version"]) == ("trained on the test set ? sorry", "1.1.0")
    assert user.registry.GetModel(r.GetModelRequest(model=model)).model.latest_version == "1.0.0"
    again = r.SetAliasRequest(model=model, alias="stable", version="1.1.0")
    assert fails(maker.registry.SetAlias, again).reason == "VERSION_STATE"
    maker.registry.UnyankVersion(r.UnyankVersionRequest(model=model, version="1.1.0"))
    until(lambda: told(user, alias)["mercat-model-version"] == "1.1.0")
    until(lambda: told(user, model)["mercat-model-version"] == "1.1.0")
    assert (
        fails(maker.registry.UnyankVersion, r.UnyankVersionRequest(model=model, version="1.1.0")).reason
        == "VERSION_STATE"
    )


def test_a_review_shows_what_differs(platform: Platform, maker: Account, user: Account, pair: str) -> None:
    """To the reviewer and to the owner; to nobody else."""
    request = r.GetVersionReviewRequest(model=pair, version="1.1.0")
    found = platform.admin().registry.GetVersionReview(request).review
    assert found.base == "1.0.0"
    changed = {c.subject: (c.before, c.after) for c in found.changes}
    digests = [user.registry.GetVersion(r.GetVersionRequest(model=pair, version=v)).version for v in ("1.0.0", "1.1.0")]
    assert changed["artifact"] == tuple(f"{v.digest}, {v.size_bytes:,} bytes" for v in digests)
    assert not [name for name in changed if name.startswith(("input", "output", "operator"))]
    results = {c.name: c.result for c in found.checks}
    assert results["validation"] == results["compatible with the last version"] == r.CHECK_RESULT_PASSED
    assert results["has a card"] == r.CHECK_RESULT_WARNING
    assert [(d.approved, d.reason) for d in found.decisions] == [(True, "")]
    assert maker.registry.GetVersionReview(request).review.changes == found.changes
    assert fails(user.registry.GetVersionReview, request).code is grpc.StatusCode.PERMISSION_DENIED
    assert fails(platform.publisher().registry.GetVersionReview, request).reason == "MODEL_NOT_FOUND"


def test_what_an_admin_yanks_the_owner_does_not_give_back(platform: Platform, maker: Account, pair: str) -> None:
    admin = platform.admin()
    made = admin.registry.YankVersion(r.YankVersionRequest(model=pair, version="1.0.0", reason="stolen")).version
    assert made.yank.by_admin
    request = r.UnyankVersionRequest(model=pair, version="1.0.0")
    error = fails(maker.registry.UnyankVersion, request)
    assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "VERSION_STEP_DENIED")
    assert not admin.registry.UnyankVersion(request).version.HasField("yank")


def test_a_deprecation_is_told_with_every_answer(platform: Platform, maker: Account, user: Account, pair: str) -> None:
    model = pair
    assert "mercat-deprecation" not in told(user, f"{model}@1.0.0")
    sunset = ahead(DAY)
    calls = f"SELECT count(*) FROM usage.usage_records WHERE model = '{model}' AND version = '1.0.0'"
    until(lambda: platform.value(calls))
    listening = [hears(person, "model.deprecated") for person in (maker, user)]
    made = deprecate(maker, model, sunset_at=sunset, successor="1.1.0", reason="wrong above 2^31")
    assert (made.state, made.deprecation.successor) == (r.VERSION_STATE_DEPRECATED, f"{model}@1.1.0")
    for events in listening:  # its maker, and who has called it
        event = heard(events)
        assert (event["model"], event["version"]) == (model, "1.0.0")
        assert (event["successor"], event["reason"]) == (f"{model}@1.1.0", "wrong above 2^31")
        assert event["sunsetAt"] == sunset.ToJsonString()
    until(lambda: "mercat-sunset" in told(user, f"{model}@1.0.0"))
    said = told(user, f"{model}@1.0.0")
    assert said["mercat-sunset"] == sunset.ToJsonString()
    assert said["mercat-successor"] == f"{model}@1.1.0"
    assert said["mercat-deprecation"] == f"{made.deprecation.deprecated_at.ToDatetime():%Y-%m-%dT%H:%M:%SZ}"
    assert "mercat-deprecation" not in told(user, model)  # the default is another

    answer = post(platform, user, f"{model}@1.0.0")
    assert answer.status_code == 200, answer.text
    assert answer.headers["deprecation"] == f"@{made.deprecation.deprecated_at.seconds}"
    assert answer.headers["sunset"] == f"{sunset.ToDatetime():%a, %d %b %Y %H:%M:%S GMT}"
    assert answer.headers["link"] == f'</v1/models/{model}/versions/1.1.0>; rel="successor-version"'
    # The entries of a batch tell the call that brings them.
    batch = inference_pb2.BatchPredictRequest(requests=[asked(f"{model}@1.0.0"), asked(f"{model}@1.0.0")])
    _, call = user.inference.BatchPredict.with_call(batch)
    assert [v for n, v in call.trailing_metadata() if n == "mercat-successor"] == [f"{model}@1.1.0"]

    # What was announced never comes earlier; it can be put off, and taken back.
    error = fails(maker.registry.DeprecateVersion, r.DeprecateVersionRequest(
        model=model, version="1.0.0", sunset_at=ahead(DAY / 2)
    ))  # fmt: skip
    assert [v.field for v in error.violations] == ["sunset_at"]
    later = deprecate(maker, model, sunset_at=ahead(2 * DAY))
    assert later.deprecation.deprecated_at == made.deprecation.deprecated_at
    assert not deprecate(maker, model).deprecation.HasField("sunset_at")
    until(lambda: "mercat-sunset" not in told(user, f"{model}@1.0.0"))


def test_a_pinned_version_never_changes(platform: Platform, maker: Account, user: Account, pair: str) -> None:
    """Whatever becomes of its model: who names a version exactly gets it, with the answers of before."""
    model = pair
    exact = f"{model}@1.0.0"

    def answers() -> bytes:
        got = user.inference.Predict(asked(exact))
        assert got.version == "1.0.0"
        return bytes(got.outputs[0].raw)

    before, other = answers(), user.inference.Predict(asked(f"{model}@1.1.0")).outputs[0].raw
    assert before != other
    digest = user.registry.GetVersion(r.GetVersionRequest(model=model, version="1.0.0")).version.digest
    was = user.registry.GetModel(r.GetModelRequest(model=model)).model.aliases["stable"]
    for version in ("1.0.0", "1.1.0"):
        maker.registry.SetAlias(r.SetAliasRequest(model=model, alias="stable", version=version))
        assert answers() == before
    # Where an alias was, and where it is, is in the audit log of its owner.
    until(lambda: moves(maker, model)[:2] == [("1.0.0", "1.1.0"), (was, "1.0.0")])
    deprecate(maker, model, successor="1.1.0")
    maker.registry.YankVersion(r.YankVersionRequest(model=model, version="1.0.0", reason="old"))
    until(lambda: "mercat-yanked" in told(user, exact))
    assert answers() == before
    assert user.registry.GetVersion(r.GetVersionRequest(model=model, version="1.0.0")).version.digest == digest


def test_the_command_line_shows_and_ends_versions(platform: Platform, maker: Account, pair: str) -> None:
    def models(*args: str) -> str:
        done = platform.command("models", *args, MERCAT_API_KEY=maker.api_key)
        assert done.returncode == 0, done.stderr
        return done.stdout

    review = models("review", f"{pair}@1.1.0")
    assert "compared with" in review, review
    assert "compatible with the last version" in review, review
    assert json.loads(models("review", f"{pair}@1.1.0", "--json"))["base"] == "1.0.0"
    assert "is deprecated; calls are refused from 2" in models("deprecate", f"{pair}@1.1.0", "--sunset", "90d")
    assert "is yanked" in models("yank", f"{pair}@1.1.0", "--reason", "wrong")
    listed = next(line for line in models("versions", pair).splitlines() if line.startswith("1.1.0"))
    assert "deprecated until 2" in listed, listed
    assert ", yanked" in listed, listed
    assert "is deprecated again" in models("unyank", f"{pair}@1.1.0")

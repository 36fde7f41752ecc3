"""Gated models: who may call them, and how that comes about."""

import json
from pathlib import Path

import grpc
import pytest
from mercat.auth.v1 import auth_pb2
from mercat.inference.v1 import inference_pb2
from mercat.marketplace.v1 import marketplace_pb2
from mercat.notification.v1 import webhooks_pb2
from mercat.registry.v1 import access_pb2 as pb
from mercat.registry.v1 import visibility_pb2

from services.common.errors import from_rpc_error
from tests import graphs
from tests.expect import fails, until
from tests.integration.registry.test_visibility import predict
from tests.platform import Account, Platform

GATED, MANUAL, AUTOMATIC = (
    visibility_pb2.VISIBILITY_GATED, visibility_pb2.APPROVAL_MANUAL, visibility_pb2.APPROVAL_AUTOMATIC
)  # fmt: skip


def gate(owner: Account, model: str, approval: int, **terms: str) -> None:
    said = visibility_pb2.Gate(approval=approval, **terms)
    request = pb.SetModelVisibilityRequest(model=model, visibility=GATED, gate=said)
    owner.access.SetModelVisibility(request)


def show(person: Account, model: str) -> pb.GetModelAccessResponse:
    return person.access.GetModelAccess(pb.GetModelAccessRequest(model=model))  # type: ignore[no-any-return]


def ask(person: Account, model: str, message: str = "") -> pb.ModelAccess:
    digest = show(person, model).gate.terms_digest
    request = pb.RequestModelAccessRequest(model=model, terms_digest=digest, message=message)
    return person.access.RequestModelAccess(request).access  # type: ignore[no-any-return]


def reason(person: Account, model: str) -> str:
    """Of the refusal of a call; empty when it succeeds. Each worker that answers hears of a change by itself."""
    try:
        for _ in range(4):
            person.inference.Predict(predict(model))
    except grpc.RpcError as e:
        return from_rpc_error(e).reason
    return ""


@pytest.fixture(scope="module")
def owner(platform: Platform) -> Account:
    return platform.publisher()


@pytest.fixture
def model(platform: Platform, owner: Account) -> str:
    return platform.publish(owner, graphs.tiny())


def test_an_owner_lets_one_in_and_throws_them_out_again(platform: Platform, owner: Account, model: str) -> None:
    person = platform.sign_up()
    handle = person.profile.organisation
    gate(owner, model, MANUAL, terms="Be kind.", terms_version="1")
    until(lambda: reason(person, model) == "ACCESS_REQUIRED")
    refused = fails(person.inference.Predict, predict(model))
    assert refused.code == grpc.StatusCode.PERMISSION_DENIED
    assert refused.metadata["command"] == f"mercat access request {model}"
    assert reason(owner, model) == ""  # its own organisation needs none
    person.inference.Quote(inference_pb2.QuoteRequest(model=model, units={"requests": 1}))
    listing = marketplace_pb2.GetListingRequest(model=model)
    until(lambda: person.marketplace.GetListing(listing).listing.model.visibility == GATED)

    seen = show(person, model)
    assert (seen.gate.terms, seen.gate.terms_version, seen.access.may_call) == ("Be kind.", "1", False)
    blind = fails(person.access.RequestModelAccess, pb.RequestModelAccessRequest(model=model))
    assert blind.reason == "TERMS_NOT_ACCEPTED"
    assert blind.metadata["terms_digest"] == seen.gate.terms_digest
    asked = ask(person, model, "for a test")
    assert (asked.state, asked.may_call) == (pb.ACCESS_STATE_REQUESTED, False)
    assert (asked.accepted_by, asked.accepted_digest) == (person.profile.user_id, seen.gate.terms_digest)

    open_ones = pb.ListModelAccessesRequest(model=model, state=pb.ACCESS_STATE_REQUESTED)
    (found,) = owner.access.ListModelAccesses(open_ones).accesses
    assert (found.organisation, found.message) == (handle, "for a test")
    named = {"model": model, "organisation": handle}
    early = fails(owner.access.RevokeModelAccess, pb.RevokeModelAccessRequest(**named))
    assert early.reason == "ACCESS_STATE"
    assert owner.access.ApproveModelAccess(pb.ApproveModelAccessRequest(**named)).access.may_call
    until(lambda: reason(person, model) == "")
    (mine,) = person.access.ListModelAccesses(pb.ListModelAccessesRequest()).accesses
    assert (mine.model, mine.state) == (model, pb.ACCESS_STATE_GRANTED)

    owner.access.RevokeModelAccess(pb.RevokeModelAccessRequest(**named, reason="not kind"))
    until(lambda: reason(person, model) == "ACCESS_REQUIRED")
    assert show(person, model).access.reason == "not kind"
    gate(owner, model, AUTOMATIC, terms="Be kind.", terms_version="1")
    assert ask(person, model).state == pb.ACCESS_STATE_REQUESTED  # whoever was thrown out does not let themselves in
    denied = owner.access.DenyModelAccess(pb.DenyModelAccessRequest(**named, reason="no")).access
    assert (denied.state, denied.reason) == (pb.ACCESS_STATE_DENIED, "no")


def test_other_terms_have_to_be_accepted_anew(platform: Platform, owner: Account, model: str) -> None:
    person = platform.sign_up()
    gate(owner, model, AUTOMATIC, terms_url="https://example.com/terms", terms_version="1")
    first = ask(person, model)
    assert (first.state, first.may_call, first.accepted_version) == (pb.ACCESS_STATE_GRANTED, True, "1")
    until(lambda: reason(person, model) == "")
    gate(owner, model, MANUAL, terms_url="https://example.com/terms", terms_version="2")
    until(lambda: reason(person, model) == "ACCESS_REQUIRED")
    stale = pb.RequestModelAccessRequest(model=model, terms_digest=first.accepted_digest)
    assert fails(person.access.RequestModelAccess, stale).reason == "TERMS_NOT_ACCEPTED"
    second = ask(person, model)  # had been let in, and needs nobody for that again
    assert (second.state, second.may_call, second.accepted_version) == (pb.ACCESS_STATE_GRANTED, True, "2")
    until(lambda: reason(person, model) == "")


def test_both_sides_are_told(platform: Platform, owner: Account, model: str) -> None:
    person = platform.sign_up()
    gate(owner, model, MANUAL)
    streams = [
        who.webhooks.StreamEvents(webhooks_pb2.StreamEventsRequest(event_types=[kind]), timeout=60)
        for who, kind in ((owner, "model.access_requested"), (person, "model.access_decided"))
    ]
    for stream in streams:
        assert not next(stream).HasField("event")  # from now on
    ask(person, model, "please")
    named = {"model": model, "organisation": person.profile.organisation}
    owner.access.ApproveModelAccess(pb.ApproveModelAccessRequest(**named))
    requested, decided = (json.loads(next(stream).event.body)["data"] for stream in streams)
    assert requested == {**named, "message": "please"}
    assert decided == {**named, "state": "granted", "reason": ""}


def test_what_needs_no_access_cannot_be_asked_for(platform: Platform, owner: Account, model: str) -> None:
    person = platform.sign_up()
    request = pb.RequestModelAccessRequest(model=model)
    assert fails(person.access.RequestModelAccess, request).reason == "MODEL_NOT_GATED"
    bare = pb.SetModelVisibilityRequest(model=model, visibility=GATED)
    assert fails(owner.access.SetModelVisibility, bare).violations[0].field == "gate"
    gate(owner, model, AUTOMATIC)
    assert fails(owner.access.RequestModelAccess, request).reason == "MODEL_NOT_GATED"
    nobody = pb.ApproveModelAccessRequest(model=model, organisation="nobody")
    assert fails(owner.access.ApproveModelAccess, nobody).reason == "ACCESS_NOT_FOUND"
    assert ask(person, model).may_call


def test_from_the_command_line(platform: Platform, owner: Account, model: str, tmp_path: Path) -> None:
    person = platform.sign_up(auth_pb2.ROLE_CONSUMER)

    def run(who: Account, *words: str) -> str:
        done = platform.command(*words, MERCAT_API_KEY=who.api_key)
        assert done.returncode == 0, done.stderr
        return done.stdout

    terms = tmp_path / "terms.txt"
    terms.write_text("Be kind.")
    said = run(owner, "models", "visibility", model, "gated", "--approval", "manual", "--terms", str(terms))
    assert "is gated" in said
    refused = platform.command("access", "request", model, MERCAT_API_KEY=person.api_key)
    assert refused.returncode == 1
    assert f"mercat access show {model}" in refused.stderr
    assert "Be kind." in run(person, "access", "show", model)
    assert "is asked" in run(person, "access", "request", model, "--accept", "--message", "hello")
    assert "hello" in run(owner, "access", "list", model, "--state", "requested")
    assert "is granted" in run(owner, "access", "approve", model, person.profile.organisation)
    assert json.loads(run(person, "access", "show", model, "--json"))["access"]["mayCall"]

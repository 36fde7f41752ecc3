"""Names of models that look like another of their publisher's, and addresses that models left."""

import secrets
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
import pytest
from mercat.registry.v1 import registry_pb2 as r
from mercat.registry.v1 import transfer_pb2 as t

from services.common.errors import from_rpc_error
from tests import graphs
from tests.expect import fails
from tests.platform import Account, Platform


@pytest.fixture(scope="module")
def owner(platform: Platform) -> Account:
    return platform.organisation(platform.publisher())


@pytest.fixture(scope="module")
def other(platform: Platform) -> Account:
    return platform.organisation(platform.publisher())


def new(name: str) -> r.CreateModelRequest:
    return r.CreateModelRequest(name=name, summary="s", category="other", task="test", license="MIT")


def move(owner: Account, model: str, other: Account, name: str = "") -> r.Model:
    offer = t.TransferModelRequest(model=model, organisation=other.profile.organisation)
    made = owner.transfers.TransferModel(offer).transfer
    accept = t.AcceptModelTransferRequest(transfer_id=made.transfer_id, name=name)
    return other.transfers.AcceptModelTransfer(accept).model  # type: ignore[no-any-return]


def test_names_that_look_alike_are_refused(platform: Platform, owner: Account, other: Account) -> None:
    owner.registry.CreateModel(new("resnet-50.m"))
    for like in ("resnet50m", "resnet_5.0-m", "resnet-5o.m", "re5net-50.rn"):
        error = fails(owner.registry.CreateModel, new(like))
        assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "MODEL_NAME_TOO_SIMILAR")
        assert [v.field for v in error.violations] == ["name"]
    assert fails(owner.registry.CreateModel, new("resnet-50.m")).reason == "MODEL_EXISTS"
    owner.registry.CreateModel(new("resnet-101.m"))
    model = other.registry.CreateModel(new("resnet50m")).model.model  # of another publisher
    offer = t.TransferModelRequest(model=model, organisation=owner.profile.organisation)
    made = other.transfers.TransferModel(offer).transfer
    accept = t.AcceptModelTransferRequest(transfer_id=made.transfer_id)
    error = fails(owner.transfers.AcceptModelTransfer, accept)
    assert (error.reason, [v.field for v in error.violations]) == ("MODEL_NAME_TOO_SIMILAR", ["name"])
    accept.name = "resnet-of-others"
    assert owner.transfers.AcceptModelTransfer(accept).model.model.endswith("/resnet-of-others")
    # The name that it has now is what others are compared with.
    assert fails(owner.registry.CreateModel, new("resnet.of.others")).reason == "MODEL_NAME_TOO_SIMILAR"
    answer = httpx.post(
        f"{platform.rest}/v1/models", headers={"authorization": f"Bearer {owner.api_key}"}, timeout=20,
        json={"name": "resnet0fothers", "summary": "s", "category": "other", "task": "test", "license": "MIT"},
    )  # fmt: skip
    assert answer.status_code == 409
    assert "MODEL_NAME_TOO_SIMILAR" in answer.text


def test_of_two_at_once_one_gets_the_name(owner: Account) -> None:
    name = f"many-{secrets.token_hex(4)}"

    def attempt(name: str) -> str:
        try:
            owner.registry.CreateModel(new(name))
        except grpc.RpcError as e:
            return from_rpc_error(e).reason
        return "made"

    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(attempt, [name, name.replace("-", "_"), name.replace("-", "."), name.replace("-", "")]))
    assert sorted(said) == ["MODEL_NAME_TOO_SIMILAR"] * 3 + ["made"]


def test_an_address_that_a_model_left_is_nobody_elses(platform: Platform, owner: Account, other: Account) -> None:
    """Who calls it gets the model that was there, and no other; for half a year."""
    model = platform.publish(owner, graphs.tiny())
    name = model.partition("/")[2]
    moved = move(owner, model, other)
    error = fails(owner.registry.CreateModel, new(name))
    assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "MODEL_NAME_QUARANTINED")
    assert [v.field for v in error.violations] == ["name"]
    assert other.profile.organisation not in error.message + error.violations[0].description
    # Nor is it for one that comes from elsewhere.
    stranger = platform.organisation(platform.publisher())
    theirs = stranger.registry.CreateModel(new(name)).model.model
    offer = t.TransferModelRequest(model=theirs, organisation=owner.profile.organisation)
    made = stranger.transfers.TransferModel(offer).transfer
    accept = t.AcceptModelTransferRequest(transfer_id=made.transfer_id)
    assert fails(owner.transfers.AcceptModelTransfer, accept).reason == "MODEL_NAME_QUARANTINED"
    assert owner.registry.GetModel(r.GetModelRequest(model=model)).model.model_id == moved.model_id
    done = platform.command(
        "models", "create", name, "--summary", "s", "--category", "other", "--task", "t", "--license", "MIT",
        MERCAT_API_KEY=owner.api_key,
    )  # fmt: skip
    assert done.returncode == 1
    assert "MODEL_NAME_QUARANTINED" in done.stderr
    # What nobody could call leaves nothing behind.
    draft = owner.registry.CreateModel(new(f"{name}-draft")).model.model
    move(owner, draft, other)
    owner.registry.CreateModel(new(f"{name}-draft"))
    # The model itself may come back, and go again.
    back = move(other, moved.model, owner)
    assert (back.model, back.model_id) == (model, moved.model_id)
    assert fails(other.registry.CreateModel, new(name)).reason == "MODEL_NAME_QUARANTINED"
    move(owner, model, other)
    assert fails(owner.registry.CreateModel, new(name)).reason == "MODEL_NAME_QUARANTINED"
    platform.value(
        "UPDATE registry.model_addresses SET left_at = left_at - interval '180 days'"
        f" WHERE publisher = '{owner.profile.organisation}' AND name = '{name}' RETURNING name"
    )
    fresh = owner.registry.CreateModel(new(name)).model
    assert fresh.model_id != moved.model_id
    assert owner.registry.GetModel(r.GetModelRequest(model=model)).model.model_id == fresh.model_id

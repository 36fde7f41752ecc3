"""Private models: what their own organisation has of them, and when others lose and find them again. That strangers are
told nothing by any method is in tests/integration/test_authorisation.py."""

import secrets

import grpc
import httpx
import numpy as np
import pytest
from mercat.inference.v1 import inference_pb2
from mercat.marketplace.v1 import collections_pb2, discovery_pb2, marketplace_pb2
from mercat.registry.v1 import access_pb2, registry_pb2, visibility_pb2
from tritonclient.grpc import service_pb2, service_pb2_grpc

from services.common.errors import from_rpc_error
from tests import graphs
from tests.expect import fails, until
from tests.platform import Account, Platform

PUBLIC, PRIVATE = visibility_pb2.VISIBILITY_PUBLIC, visibility_pb2.VISIBILITY_PRIVATE


def predict(model: str) -> inference_pb2.PredictRequest:
    x = inference_pb2.Tensor(name="x", datatype="FP32", shape=[1, 4], raw=np.ones(4, "<f4").tobytes())
    return inference_pb2.PredictRequest(model=model, inputs=[x])


def show(owner: Account, model: str, to: int) -> registry_pb2.Model:
    request = access_pb2.SetModelVisibilityRequest(model=model, visibility=to)
    return owner.access.SetModelVisibility(request).model  # type: ignore[no-any-return]


def found(person: Account, query: str) -> list[str]:
    hits = person.marketplace.SearchModels(marketplace_pb2.SearchModelsRequest(query=query)).hits
    return [hit.model for hit in hits]


@pytest.fixture(scope="module")
def owner(platform: Platform) -> Account:
    return platform.organisation(platform.publisher())


@pytest.fixture(scope="module")
def private(platform: Platform, owner: Account) -> str:
    """Private from its first day."""
    name = "hidden"
    request = registry_pb2.CreateModelRequest(
        name=name, summary="s", category="other", task="test", license="MIT", visibility=PRIVATE
    )
    model = owner.registry.CreateModel(request).model
    assert model.visibility == PRIVATE
    platform.validated(owner, model.model, platform.upload(owner, graphs.tiny()))
    platform.through_review(owner, model.model, "1.0.0")
    owner.registry.SetAlias(registry_pb2.SetAliasRequest(model=model.model, alias="stable", version="1.0.0"))
    return model.model  # type: ignore[no-any-return]


def test_its_organisation_has_all_of_it(platform: Platform, owner: Account, private: str) -> None:
    member = platform.join(owner, platform.sign_up(), "developer")
    assert member.inference.Predict(predict(private)).version == "1.0.0"
    assert member.registry.GetModel(registry_pb2.GetModelRequest(model=private)).model.visibility == PRIVATE
    listed = member.registry.ListModels(registry_pb2.ListModelsRequest(page_size=1000)).models
    assert private in [m.model for m in listed]
    quote = inference_pb2.QuoteRequest(model=private, units={"requests": 3})
    assert member.inference.Quote(quote).calls == 1


@pytest.mark.parametrize("suffix", ["", "@1.0.0", ":stable", "@9.9.9", ":beta"])
def test_calls_of_others_tell_nothing(platform: Platform, owner: Account, private: str, suffix: str) -> None:
    """Also where the worker has the model in memory because its owner called it."""
    if suffix in ("", "@1.0.0", ":stable"):
        owner.inference.Predict(predict(private + suffix))
    else:
        assert fails(owner.inference.Predict, predict(private + suffix)).reason in (
            "VERSION_NOT_FOUND",
            "ALIAS_NOT_FOUND",
        )
    stranger = platform.sign_up()
    error = fails(stranger.inference.Predict, predict(private + suffix))
    nothing = fails(stranger.inference.Predict, predict("nobody/nothing" + suffix))
    assert error.reason == nothing.reason == "MODEL_NOT_FOUND"
    assert error.message.replace(private, "nobody/nothing") == nothing.message
    assert error.metadata.keys() == nothing.metadata.keys()


def test_platform_administrators_review_it_and_do_not_call_it(platform: Platform, private: str) -> None:
    admin = platform.admin()
    assert admin.registry.GetModel(registry_pb2.GetModelRequest(model=private)).model.model == private
    assert fails(admin.inference.Predict, predict(private)).reason == "MODEL_NOT_FOUND"


def test_other_dialects_tell_nothing_either(platform: Platform, owner: Account, private: str) -> None:
    stranger = platform.sign_up()
    triton = service_pb2_grpc.GRPCInferenceServiceStub(platform.channel)
    for call, request in (
        (triton.ModelReady, service_pb2.ModelReadyRequest(name=private)),
        (triton.ModelMetadata, service_pb2.ModelMetadataRequest(name=private)),
        (triton.ModelConfig, service_pb2.ModelConfigRequest(name=private)),
        (triton.ModelStatistics, service_pb2.ModelStatisticsRequest(name=private)),
        (triton.ModelInfer, service_pb2.ModelInferRequest(model_name=private)),
    ):
        assert fails(call, request, metadata=stranger.metadata).reason == "MODEL_NOT_FOUND"
    assert triton.ModelReady(service_pb2.ModelReadyRequest(name=private), metadata=owner.metadata).ready

    def asked(person: Account) -> httpx.Response:
        body = {"model": private, "input": "x"}
        headers = {"authorization": f"Bearer {person.api_key}"}
        return httpx.post(f"{platform.rest}/openai/v1/embeddings", json=body, headers=headers, timeout=20)

    assert (answer := asked(stranger)).status_code == 404, answer.text
    assert answer.json()["error"]["code"] == "model_not_found"
    assert asked(owner).json()["error"]["code"] != "model_not_found"


def test_jobs_of_others_end_with_what_calls_do(platform: Platform, private: str) -> None:
    stranger = platform.sign_up()
    made = stranger.jobs.CreateJob(inference_pb2.CreateJobRequest(predict=predict(private))).job
    *_, last = stranger.jobs.WatchJob(inference_pb2.WatchJobRequest(job_id=made.job_id))
    assert last.job.state == inference_pb2.JOB_STATE_FAILED
    assert "there is no model" in last.job.error.message


def test_a_model_leaves_the_marketplace_and_comes_back(platform: Platform, owner: Account) -> None:
    """In listings, searches, leaderboards, collections and feeds; in calls, also of who has just called it."""
    word = f"hidden{secrets.token_hex(4)}"
    request = registry_pb2.CreateModelRequest(name=word, summary="s", category="other", task=word, license="MIT")
    model = owner.registry.CreateModel(request).model.model
    platform.validated(owner, model, platform.upload(owner, graphs.tiny()))
    platform.through_review(owner, model, "1.0.0")
    reader = platform.sign_up()
    until(lambda: model in found(reader, word))
    made = reader.collections.CreateCollection(collections_pb2.CreateCollectionRequest(title="kept")).collection
    one = collections_pb2.GetCollectionRequest(collection_id=made.collection_id)
    add = collections_pb2.AddToCollectionRequest(collection_id=made.collection_id, model=model)
    reader.collections.AddToCollection(add)
    follow = collections_pb2.FollowPublisherRequest(publisher=owner.profile.organisation)
    reader.collections.FollowPublisher(follow)
    board = discovery_pb2.GetLeaderboardRequest(board="cheapest", task=word)

    def places() -> list[bool]:
        return [
            model in found(reader, word),
            model in [hit.model for hit in reader.discovery.GetLeaderboard(board).hits],
            model in [hit.model for hit in reader.collections.GetCollection(one).collection.models],
            model in [e.hit.model for e in reader.collections.ListFeed(collections_pb2.ListFeedRequest()).entries],
        ]

    until(lambda: all(places()))
    reader.inference.Predict(predict(model))
    show(owner, model, PRIVATE)
    until(lambda: not any(places()))
    until(lambda: reason(reader, model) == "MODEL_NOT_FOUND")
    assert owner.inference.Predict(predict(model)).version == "1.0.0"
    show(owner, model, PUBLIC)
    until(lambda: all(places()))
    until(lambda: reason(reader, model) == "")


def reason(person: Account, model: str) -> str:
    """Of the refusal of a call; empty when it succeeds. Each worker that answers hears of a change by itself."""
    try:
        for _ in range(4):
            person.inference.Predict(predict(model))
    except grpc.RpcError as e:
        return from_rpc_error(e).reason
    return ""


def test_only_its_owner_hides_it(platform: Platform, owner: Account, private: str) -> None:
    other = platform.publisher()
    request = access_pb2.SetModelVisibilityRequest(model=private, visibility=PUBLIC)
    assert fails(other.access.SetModelVisibility, request).reason == "MODEL_NOT_FOUND"
    assert owner.registry.GetModel(registry_pb2.GetModelRequest(model=private)).model.visibility == PRIVATE

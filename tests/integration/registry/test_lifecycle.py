"""A version's life among three people: who makes it, who reviews it, who wants to use it."""

import secrets
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from mercat.common.v1 import tensor_pb2
from mercat.inference.v1 import inference_pb2
from mercat.registry.v1 import registry_pb2 as r

from services.common.errors import MercatError, from_rpc_error
from tests import graphs
from tests.expect import fails, until
from tests.platform import Account, Platform

V = r
NOTHING = "sha256:" + "0" * 64
STEPS = ("Submit", "Approve", "Reject", "Publish", "Deprecate")


@pytest.fixture(scope="module")
def maker(platform: Platform) -> Account:
    return platform.publisher()


@pytest.fixture(scope="module")
def rival(platform: Platform) -> Account:
    return platform.publisher()


@pytest.fixture(scope="module")
def user(platform: Platform) -> Account:
    return platform.sign_up(credit=1_000_000_000)


@pytest.fixture(scope="module")
def reviewer(platform: Platform) -> Account:
    return platform.admin()


def step(person: Account, name: str) -> Callable[..., Any]:
    return getattr(person.registry, f"{name}Version")  # type: ignore[no-any-return]


def request(name: str, model: str, version: str = "1.0.0") -> Any:
    fields = {"reason": "because"} if name in ("Reject", "Deprecate") else {}
    return getattr(r, f"{name}VersionRequest")(model=model, version=version, **fields)


def new_model(maker: Account, **fields: Any) -> str:
    values: dict[str, Any] = {
        "name": f"m{secrets.token_hex(4)}", "summary": "s", "category": "other", "task": "test", "license": "MIT",
    }  # fmt: skip
    return str(maker.registry.CreateModel(r.CreateModelRequest(**(values | fields))).model.model)


def get(person: Account, model: str, version: str = "1.0.0") -> r.Version:
    return person.registry.GetVersion(r.GetVersionRequest(model=model, version=version)).version  # type: ignore[no-any-return]


def predict(person: Account, model: str) -> inference_pb2.PredictResponse:
    tensor = inference_pb2.Tensor(name="x", datatype="FP32", shape=[1, 4])
    tensor.raw = bytes(16)
    return person.inference.Predict(inference_pb2.PredictRequest(model=model, inputs=[tensor]))  # type: ignore[no-any-return]


def drafted(platform: Platform, maker: Account, model: str, version: str = "1.0.0", **options: Any) -> None:
    got = platform.validated(maker, model, platform.upload(maker, graphs.tiny()), version, **options)
    assert got.state == V.VERSION_STATE_DRAFT, got.findings


def test_the_whole_life_by_three_people(
    platform: Platform, maker: Account, reviewer: Account, rival: Account, user: Account
) -> None:
    model = new_model(maker)
    drafted(platform, maker, model)
    unknown = f"{maker.profile.username}/nothing"

    def hidden() -> None:
        """Whoever is neither maker nor reviewer learns nothing, not even that there is something."""
        for person in (user, rival, platform.anonymous):
            for call, kind in (
                (person.registry.GetModel, r.GetModelRequest), (person.registry.ListVersions, r.ListVersionsRequest),
                (person.registry.GetVersion, lambda model: r.GetVersionRequest(model=model, version="1.0.0")),
            ):  # fmt: skip
                error, other = fails(call, kind(model=model)), fails(call, kind(model=unknown))
                assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
                assert error.message.replace(model, unknown) == other.message
        for person in (user, maker):
            called = [_predict_error(person, m) for m in (model, unknown)]
            assert called[0].reason == called[1].reason == "MODEL_NOT_FOUND"
            assert called[0].message.replace(model, unknown) == called[1].message

    def only(allowed: str, person: Account, state: int, name: str) -> None:
        """Every step but the allowed ones fails, with what the version is; then the allowed one is taken."""
        for other in STEPS:
            actor = reviewer if other in ("Approve", "Reject") else maker
            if other == allowed or (allowed, other) == ("Approve", "Reject"):
                continue
            error = fails(step(actor, other), request(other, model))
            assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "VERSION_STATE"), other
            assert error.metadata == {**error.metadata, "state": name, "step": other.lower()}
        assert get(maker, model).state == state
        if allowed:
            step(person, allowed)(request(allowed, model))

    hidden()
    only("Submit", maker, V.VERSION_STATE_DRAFT, "draft")
    hidden()
    reviews = [v.model for v in reviewer.registry.ListReviews(r.ListReviewsRequest(page_size=1000)).versions]
    assert model in reviews
    only("Approve", reviewer, V.VERSION_STATE_REVIEW, "review")
    hidden()
    only("Publish", maker, V.VERSION_STATE_APPROVED, "approved")
    assert user.registry.GetModel(r.GetModelRequest(model=model)).model.latest_version == "1.0.0"
    assert predict(user, model).version == "1.0.0"
    only("Deprecate", maker, V.VERSION_STATE_PUBLISHED, "published")
    only("Deprecate", maker, V.VERSION_STATE_DEPRECATED, "deprecated")  # once more, with other words
    # Whoever has pinned it can still call it; nobody else gets it.
    assert predict(user, f"{model}@1.0.0").version == "1.0.0"
    assert get(user, model).deprecation.reason == "because"


def _predict_error(person: Account, model: str) -> MercatError:
    with pytest.raises(grpc.RpcError) as caught:
        predict(person, model)
    return from_rpc_error(caught.value)


def test_only_whose_turn_it_is_takes_a_step(
    platform: Platform, maker: Account, rival: Account, user: Account, reviewer: Account
) -> None:
    model = new_model(maker)
    drafted(platform, maker, model)
    for name in ("Submit", "Publish", "Deprecate"):
        assert fails(step(user, name), request(name, model)).code is grpc.StatusCode.PERMISSION_DENIED
        for person in (rival, reviewer):
            error = fails(step(person, name), request(name, model))
            assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"), name
    for name in ("Approve", "Reject"):
        for person in (user, rival, maker):
            assert fails(step(person, name), request(name, model)).code is grpc.StatusCode.PERMISSION_DENIED
    for call, message in (
        (rival.registry.UpdateModel, r.UpdateModelRequest(model=model, summary="mine")),
        (rival.registry.SetAlias, r.SetAliasRequest(model=model, alias="stable", version="1.0.0")),
        (rival.registry.CreateVersion, r.CreateVersionRequest(model=model, version="2.0.0", digest=NOTHING)),
    ):  # fmt: skip
        assert fails(call, message).reason == "MODEL_NOT_FOUND"


def test_what_is_sent_back_comes_again(platform: Platform, maker: Account, reviewer: Account, user: Account) -> None:
    model = new_model(maker)
    drafted(platform, maker, model)
    maker.registry.SubmitVersion(request("Submit", model))
    back = reviewer.registry.RejectVersion(r.RejectVersionRequest(model=model, version="1.0.0", reason="say more"))
    assert (back.version.state, back.version.review_note) == (V.VERSION_STATE_DRAFT, "say more")
    error = fails(reviewer.registry.RejectVersion, r.RejectVersionRequest(model=model, version="1.0.0"))
    assert [v.field for v in error.violations] == ["reason"]
    maker.registry.SubmitVersion(request("Submit", model))
    # The next review knows of this one, and what was said in it is nobody else's business.
    review = reviewer.registry.GetVersionReview(r.GetVersionReviewRequest(model=model, version="1.0.0")).review
    assert (review.base, [(d.approved, d.reason) for d in review.decisions]) == ("", [(False, "say more")])
    reviewer.registry.ApproveVersion(r.ApproveVersionRequest(model=model, version="1.0.0", reason="now it is clear"))
    assert get(maker, model).review_note == "now it is clear"
    maker.registry.PublishVersion(request("Publish", model))
    assert get(user, model).review_note == ""
    decisions = maker.registry.GetVersionReview(
        r.GetVersionReviewRequest(model=model, version="1.0.0")
    ).review.decisions
    assert [d.approved for d in decisions] == [True, False]


def test_versions_are_immutable(platform: Platform, maker: Account) -> None:
    model = new_model(maker)
    drafted(platform, maker, model)
    again = r.CreateVersionRequest(model=model, version="1.0.0", digest=platform.upload(maker, graphs.addition()))
    error = fails(maker.registry.CreateVersion, again)
    assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "VERSION_EXISTS")
    assert [v.field for v in error.violations] == ["version"]
    error = fails(maker.registry.CreateModel, r.CreateModelRequest(
        name=model.partition("/")[2], summary="s", category="other", task="test", license="MIT"
    ))  # fmt: skip
    assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "MODEL_EXISTS")


def test_latest_aliases_and_pins(platform: Platform, maker: Account, user: Account) -> None:
    model = platform.publish(maker, graphs.tiny())
    for version in ("1.10.0", "1.9.0", "2.0.0-rc.1"):
        platform.publish(maker, graphs.tiny(), model.partition("/")[2], version=version)
    found = user.registry.GetModel(r.GetModelRequest(model=model)).model
    assert found.latest_version == "1.10.0"
    assert predict(user, model).version == "1.10.0"
    for target in ("1.9.0", "2.0.0-rc.1"):
        maker.registry.SetAlias(r.SetAliasRequest(model=model, alias="stable", version=target))
        until(lambda target=target: predict(user, f"{model}:stable").version == target)
    assert user.registry.GetModel(r.GetModelRequest(model=model)).model.aliases == {"stable": "2.0.0-rc.1"}
    assert predict(user, f"{model}@1.9.0").version == "1.9.0"
    maker.registry.DeprecateVersion(request("Deprecate", model, "1.10.0"))
    until(lambda: predict(user, model).version == "1.9.0")
    assert predict(user, f"{model}@1.10.0").version == "1.10.0"
    for reference, reason in (
        (f"{model}@3.0.0", "VERSION_NOT_FOUND"),
        (f"{model}:none", "ALIAS_NOT_FOUND"),
        ("no reference", "INVALID_FIELDS"),
    ):
        assert _predict_error(user, reference).reason == reason
    drafted(platform, maker, model, "3.0.0")
    for version, reason in (("3.0.0", "VERSION_STATE"), ("4.0.0", "VERSION_NOT_FOUND")):
        error = fails(maker.registry.SetAlias, r.SetAliasRequest(model=model, alias="stable", version=version))
        assert error.reason == reason
    # A draft beside published versions is nobody's business either.
    hidden, unknown = (
        fails(user.registry.GetVersion, r.GetVersionRequest(model=model, version=v)) for v in ("3.0.0", "5.0.0")
    )
    assert hidden.message.replace("3.0.0", "5.0.0") == unknown.message
    seen = [v.version for v in user.registry.ListVersions(r.ListVersionsRequest(model=model)).versions]
    assert sorted(seen) == ["1.0.0", "1.10.0", "1.9.0", "2.0.0-rc.1"]


def test_a_refused_artifact_says_why(platform: Platform, maker: Account) -> None:
    model = new_model(maker)
    got = platform.validated(maker, model, platform.upload(maker, b"PK\x03\x04 not a model"))
    assert got.state == V.VERSION_STATE_REFUSED
    assert [(f.code, "zip" in f.message) for f in got.findings] == [("ARCHIVE_BROKEN", True)]
    error = fails(maker.registry.SubmitVersion, request("Submit", model))
    assert error.metadata["state"] == "refused"
    assert "new version" in error.message


def test_what_is_declared_must_be_so(platform: Platform, maker: Account) -> None:
    model = new_model(maker)
    spec = tensor_pb2.TensorSpec
    good = tensor_pb2.Signature(
        inputs=[spec(name="x", datatype="FP32", shape=[-1, 4])],
        outputs=[spec(name="y", datatype="FP32", shape=[-1, 4])],
    )
    drafted(platform, maker, model, signature=good)
    wrong = tensor_pb2.Signature(
        inputs=[spec(name="x", datatype="INT64", shape=[-1, 4])], outputs=[spec(name="z", datatype="FP32", shape=[4])]
    )  # fmt: skip
    got = platform.validated(maker, model, platform.upload(maker, graphs.tiny()), "2.0.0", signature=wrong)
    assert got.state == V.VERSION_STATE_REFUSED
    assert {(f.code, f.where) for f in got.findings} == {("SIGNATURE_DIFFERS", n) for n in "xyz"}


def test_a_fixed_axis_is_not_batched(platform: Platform, maker: Account) -> None:
    model = new_model(maker)
    got = platform.validated(maker, model, platform.upload(maker, graphs.slow(10)), batch=8)
    assert got.state == V.VERSION_STATE_REFUSED
    assert {(f.code, f.where) for f in got.findings} == {("NOT_BATCHABLE", "x"), ("NOT_BATCHABLE", "y")}


def test_labels_are_of_outputs_that_are_there(platform: Platform, maker: Account) -> None:
    model, digest = new_model(maker), platform.upload(maker, graphs.tiny())
    names = r.Labels(names=["a", "b", "c", "d"])
    for version, output in (("1.0.0", "y"), ("2.0.0", "logits")):
        maker.registry.CreateVersion(
            r.CreateVersionRequest(model=model, version=version, digest=digest, labels={output: names})
        )
    ended = (V.VERSION_STATE_DRAFT, V.VERSION_STATE_REFUSED)
    until(lambda: all(get(maker, model, v).state in ended for v in ("1.0.0", "2.0.0")), 30)
    assert get(maker, model, "1.0.0").labels["y"].names == names.names
    assert [(f.code, f.where) for f in get(maker, model, "2.0.0").findings] == [("LABELS_DIFFER", "logits")]


def test_somebody_elses_artifact_makes_no_version(platform: Platform, maker: Account, rival: Account) -> None:
    theirs = platform.upload(rival, graphs.tiny(seed=99))
    error = fails(maker.registry.CreateVersion, r.CreateVersionRequest(
        model=new_model(maker), version="1.0.0", digest=theirs
    ))  # fmt: skip
    assert (error.reason, [v.field for v in error.violations]) == ("ARTIFACT_NOT_FOUND", ["digest"])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", "1.0"), ("version", "v1.0.0"), ("version", "01.0.0"), ("version", "1.0.0-01"),
        ("version", "1.0.0-"), ("version", "١.0.0"), ("version", "1.0.0+build"), ("digest", "latest"),
        ("framework", "pickle"), ("samples[0].request_json", "{"), ("samples[0].request_json", "[" * 100_000),
        ("samples[0].request_json", "[]"), ("settings.max_batch_size", -1), ("settings.timeout_ms", 10**9),
        ("model", "no reference"), ("model", "a/b@1.0.0"),
    ],
)  # fmt: skip
def test_a_broken_rule_names_its_field(maker: Account, field: str, value: Any) -> None:
    message = r.CreateVersionRequest(model=f"{maker.profile.username}/m", version="1.0.0", digest="sha256:" + "0" * 64)
    if field.startswith("samples"):
        message.samples.add(request_json=value)
    elif field.startswith("settings"):
        setattr(message.settings, field.partition(".")[2], value)
    else:
        setattr(message, field, value)
    error = fails(maker.registry.CreateVersion, message)
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [v.field for v in error.violations] == [field]


def test_a_model_changes_by_its_etag(maker: Account) -> None:
    model = new_model(maker, tags=["a", "b", "a"])
    before = maker.registry.GetModel(r.GetModelRequest(model=model)).model
    assert list(before.tags) == ["a", "b"]
    change = r.UpdateModelRequest(model=model, summary="new", etag=before.etag)
    after = maker.registry.UpdateModel(change).model
    assert (after.summary, after.license, list(after.tags)) == ("new", "MIT", ["a", "b"])
    assert after.etag != before.etag
    for etag in (before.etag, "²", "9" * 60):
        change.etag = etag
        assert fails(maker.registry.UpdateModel, change).reason == "ETAG_MISMATCH"


def test_publishing_and_aliases_change_the_etag(platform: Platform, maker: Account) -> None:
    model = platform.publish(maker, graphs.tiny())
    platform.publish(maker, graphs.tiny(), model.partition("/")[2], version="1.1.0")

    def etag() -> str:
        return str(maker.registry.GetModel(r.GetModelRequest(model=model)).model.etag)

    before = etag()
    maker.registry.SetAlias(r.SetAliasRequest(model=model, alias="stable", version="1.0.0"))
    aliased = etag()
    maker.registry.DeprecateVersion(request("Deprecate", model, "1.1.0"))
    assert len({before, aliased, etag()}) == 3
    stale = r.UpdateModelRequest(model=model, summary="of what I saw", etag=before)
    assert fails(maker.registry.UpdateModel, stale).reason == "ETAG_MISMATCH"


def test_a_model_keeps_a_summary_and_a_name(maker: Account) -> None:
    model = new_model(maker, display_name="Shown")
    error = fails(maker.registry.UpdateModel, r.UpdateModelRequest(model=model, summary=""))
    assert (error.reason, [v.field for v in error.violations]) == ("INVALID_FIELDS", ["summary"])
    after = maker.registry.UpdateModel(r.UpdateModelRequest(model=model, display_name="")).model
    assert (after.display_name, after.summary) == (model.partition("/")[2], "s")


def test_models_are_listed_in_pages(platform: Platform) -> None:
    maker = platform.publisher()
    made = [new_model(maker) for _ in range(7)]
    listed: list[str] = []
    token = ""
    while True:
        page = maker.registry.ListModels(r.ListModelsRequest(mine=True, page_size=3, page_token=token))
        listed += [m.model for m in page.models]
        token = page.next_page_token
        if not token:
            break
    assert listed == made[::-1]
    assert not set(made) & {m.model for m in platform.anonymous.registry.ListModels(r.ListModelsRequest()).models}
    error = fails(platform.anonymous.registry.ListModels, r.ListModelsRequest(mine=True))
    assert error.code is grpc.StatusCode.UNAUTHENTICATED

"""Private models are published without a review, and what becomes public has been through one."""

import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import pytest
from mercat.auth.v1 import auth_pb2
from mercat.inference.v1 import inference_pb2
from mercat.registry.v1 import access_pb2, visibility_pb2
from mercat.registry.v1 import registry_pb2 as r

from services.common.errors import from_rpc_error
from tests import graphs
from tests.expect import fails, until
from tests.platform import Account, Platform

PUBLIC, PRIVATE, GATED = (visibility_pb2.Visibility.Value(f"VISIBILITY_{n}") for n in ("PUBLIC", "PRIVATE", "GATED"))
GATE = visibility_pb2.Gate(approval=visibility_pb2.APPROVAL_AUTOMATIC)


@pytest.fixture(scope="module")
def owner(platform: Platform) -> Account:
    return platform.organisation(platform.publisher())


def drafted(platform: Platform, owner: Account, *versions: str, visibility: int = PRIVATE) -> str:
    name = f"own{secrets.token_hex(4)}"
    request = r.CreateModelRequest(
        name=name, summary="s", category="other", task="test", license="MIT", visibility=visibility
    )
    model: str = owner.registry.CreateModel(request).model.model
    for version in versions:
        assert platform.validated(owner, model, platform.upload(owner, graphs.tiny()), version).state == (
            r.VERSION_STATE_DRAFT
        )
    return model


def publish(owner: Account, model: str, version: str = "1.0.0") -> r.Version:
    return owner.registry.PublishVersion(r.PublishVersionRequest(model=model, version=version)).version  # type: ignore[no-any-return]


def show(owner: Account, model: str, to: int = PUBLIC) -> r.Model:
    request = access_pb2.SetModelVisibilityRequest(model=model, visibility=to, gate=GATE if to == GATED else None)
    return owner.access.SetModelVisibility(request).model  # type: ignore[no-any-return]


def predict(model: str) -> inference_pb2.PredictRequest:
    x = inference_pb2.Tensor(name="x", datatype="FP32", shape=[1, 4], raw=bytes(16))
    return inference_pb2.PredictRequest(model=model, inputs=[x])


def queue(platform: Platform) -> list[str]:
    found = platform.admin().registry.ListReviews(r.ListReviewsRequest(page_size=1000)).versions
    return [f"{v.model}@{v.version}" for v in found]


def test_a_private_model_is_published_by_its_owner_alone(platform: Platform, owner: Account) -> None:
    model = drafted(platform, owner, "1.0.0", "1.1.0")
    made = publish(owner, model)
    assert (made.state, made.review) == (r.VERSION_STATE_PUBLISHED, r.REVIEW_STANDING_UNSPECIFIED)
    assert owner.inference.Predict(predict(model)).version == "1.0.0"
    # One that somebody is looking at may be published too, and the look goes on.
    owner.registry.SubmitVersion(r.SubmitVersionRequest(model=model, version="1.1.0"))
    assert publish(owner, model, "1.1.0").review == r.REVIEW_STANDING_REQUESTED
    assert f"{model}@1.1.0" in queue(platform)
    assert f"{model}@1.0.0" not in queue(platform)


def test_others_do_not_become_public_unreviewed(platform: Platform, owner: Account) -> None:
    public = drafted(platform, owner, "1.0.0", visibility=PUBLIC)
    assert fails(owner.registry.PublishVersion, r.PublishVersionRequest(model=public, version="1.0.0")).reason == (
        "VERSION_STATE"
    )
    model = drafted(platform, owner, "1.0.0", "1.1.0", "1.2.0")
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        publish(owner, model, version)
    owner.registry.DeprecateVersion(r.DeprecateVersionRequest(model=model, version="1.0.0", reason="old"))
    owner.registry.YankVersion(r.YankVersionRequest(model=model, version="1.1.0", reason="wrong"))
    reader = platform.sign_up()
    for to in (PUBLIC, GATED):
        request = access_pb2.SetModelVisibilityRequest(model=model, visibility=to, gate=GATE if to == GATED else None)
        refused = fails(owner.access.SetModelVisibility, request)
        assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_UNREVIEWED")
        assert refused.metadata["versions"] == "1.0.0 1.1.0 1.2.0"
        assert refused.violations[0].field == "visibility"
    assert fails(reader.registry.GetModel, r.GetModelRequest(model=model)).reason == "MODEL_NOT_FOUND"

    for version in ("1.0.0", "1.2.0"):
        said = owner.registry.SubmitVersion(r.SubmitVersionRequest(model=model, version=version)).version
        assert said.review == r.REVIEW_STANDING_REQUESTED
    assert owner.inference.Predict(predict(f"{model}@1.2.0")).version == "1.2.0"  # in service meanwhile
    admin = platform.admin()
    again = r.SubmitVersionRequest(model=model, version="1.2.0")
    assert fails(owner.registry.SubmitVersion, again).reason == "VERSION_STATE"
    back = r.RejectVersionRequest(model=model, version="1.2.0", reason="say what it is for")
    sent = admin.registry.RejectVersion(back).version
    assert (sent.state, sent.review, sent.review_note) == (
        r.VERSION_STATE_PUBLISHED, r.REVIEW_STANDING_UNSPECIFIED, "say what it is for"
    )  # fmt: skip
    owner.registry.SubmitVersion(again)
    for version in ("1.0.0", "1.2.0"):
        approve = r.ApproveVersionRequest(model=model, version=version, reason="well done")
        passed = admin.registry.ApproveVersion(approve).version
        assert (passed.review, passed.review_note) == (r.REVIEW_STANDING_PASSED, "")
    assert passed.state == r.VERSION_STATE_PUBLISHED
    refused = fails(
        owner.access.SetModelVisibility, access_pb2.SetModelVisibilityRequest(model=model, visibility=PUBLIC)
    )
    assert refused.metadata["versions"] == "1.1.0"

    # What nobody else has seen may be given up, and comes back as what has to be reviewed.
    delete = r.DeleteVersionRequest(model=model, version="1.1.0")
    assert owner.registry.DeleteVersion(delete).version.state == r.VERSION_STATE_DELETED
    assert show(owner, model).visibility == PUBLIC
    assert reader.registry.GetModel(r.GetModelRequest(model=model)).model.latest_version == "1.2.0"
    until(lambda: called(reader, model) == "1.2.0")
    assert called(owner, f"{model}@1.1.0") == "VERSION_NOT_FOUND"
    undelete = r.UndeleteVersionRequest(model=model, version="1.1.0")
    assert owner.registry.UndeleteVersion(undelete).version.state == r.VERSION_STATE_DRAFT
    assert fails(owner.registry.PublishVersion, r.PublishVersionRequest(model=model, version="1.1.0")).reason == (
        "VERSION_STATE"
    )
    # What was reviewed stays, also when the model is private again.
    show(owner, model, PRIVATE)
    for version in ("1.0.0", "1.2.0"):
        gone = r.DeleteVersionRequest(model=model, version=version)
        assert fails(owner.registry.DeleteVersion, gone).reason == "VERSION_STATE"
    show(owner, model)


def called(person: Account, model: str) -> str:
    """The version that answers, or why none does."""
    try:
        return str(person.inference.Predict(predict(model)).version)
    except grpc.RpcError as e:
        return from_rpc_error(e).reason


def test_the_default_is_another_when_it_is_deleted(platform: Platform, owner: Account) -> None:
    model = drafted(platform, owner, "1.0.0", "2.0.0")
    publish(owner, model)
    publish(owner, model, "2.0.0")
    owner.registry.DeleteVersion(r.DeleteVersionRequest(model=model, version="2.0.0"))
    assert owner.registry.GetModel(r.GetModelRequest(model=model)).model.latest_version == "1.0.0"
    until(lambda: called(owner, model) == "1.0.0")
    # A draft that is deleted publishes nothing.
    draft = drafted(platform, owner, "1.0.0")
    owner.registry.DeleteVersion(r.DeleteVersionRequest(model=draft, version="1.0.0"))
    assert not owner.registry.GetModel(r.GetModelRequest(model=draft)).model.HasField("published_at")


def test_who_is_first_decides(platform: Platform, owner: Account) -> None:
    """Publishing without a review and showing the model at the same moment: never both."""
    for _ in range(8):
        model = drafted(platform, owner, "1.0.0")

        def quietly(call: object, model: str = model) -> str:
            try:
                call(owner, model)  # type: ignore[operator]
            except grpc.RpcError as e:
                return from_rpc_error(e).reason
            return ""

        with ThreadPoolExecutor(2) as threads:
            said = list(threads.map(quietly, (publish, show)))
        assert sorted(said) in (["", "MODEL_UNREVIEWED"], ["", "VERSION_STATE"]), said
        version = owner.registry.GetVersion(r.GetVersionRequest(model=model, version="1.0.0")).version
        seen = owner.registry.GetModel(r.GetModelRequest(model=model)).model.visibility
        assert (version.state, seen) != (r.VERSION_STATE_PUBLISHED, PUBLIC)


def test_rest_and_command_line(platform: Platform, owner: Account, tmp_path: Path) -> None:
    model = drafted(platform, owner, "1.0.0")
    with httpx.Client(base_url=platform.rest, headers={"authorization": f"Bearer {owner.api_key}"}) as http:
        answer = http.post(f"/v1/models/{model}/versions/1.0.0:publish", json={})
        assert answer.json()["state"] == "VERSION_STATE_PUBLISHED", answer.text
        answer = http.post(f"/v1/models/{model}:visibility", json={"visibility": "VISIBILITY_PUBLIC"})
        assert answer.status_code == 400
        assert "MODEL_UNREVIEWED" in answer.text
    key = {"MERCAT_API_KEY": owner.api_key}
    done = platform.command("models", "visibility", model, "public", **key)
    assert done.returncode != 0
    assert f"mercat models submit {model}@1.0.0" in done.stderr
    done = platform.command("models", "submit", f"{model}@1.0.0", **key)
    assert "in service meanwhile" in done.stdout, done.stderr
    shown = platform.command("models", "show", model, **key)
    assert "published, in review" in shown.stdout, shown.stderr
    admin = {"MERCAT_API_KEY": platform.admin().auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="k")).secret}
    shown = platform.command("models", "review", model, **admin)
    assert "release notes" in shown.stdout, shown.stderr
    done = platform.command("models", "approve", f"{model}@1.0.0", **admin)
    assert "is approved" in done.stdout, done.stderr
    assert "may publish" not in done.stdout
    done = platform.command("models", "visibility", model, "public", **key)
    assert "public" in done.stdout, done.stderr
    # From a file to a private model in service.
    (file := tmp_path / "tiny.onnx").write_bytes(graphs.tiny())
    push = ("models", "push", str(file), "--name", "pushed", "--summary", "s", "--category", "other", "--task", "t",
            "--license", "MIT", "--private")  # fmt: skip
    done = platform.command(*push, "--version", "1.0.0", **key)
    assert "mercat models publish pushed@1.0.0" in done.stdout, done.stderr
    done = platform.command(*push, "--version", "1.1.0", "--publish", **key)
    assert "published" in done.stdout, done.stderr

"""The main job over REST alone, through Envoy and through the shim, on the real platform."""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import Any

import httpx
import pytest

from tests import graphs
from tests.platform import ADMIN_EMAIL, PASSWORD, USD, Platform


class Person:
    """Somebody with a REST client, who is told of every refusal."""

    def __init__(self, url: str, token: str = "") -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        once = httpx.Limits(max_keepalive_connections=0)  # nobody closes this client
        self.http = httpx.Client(base_url=url, headers=headers, timeout=60, limits=once)

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        answer = self.http.request(method, path, json=body, **options)
        assert answer.status_code == 200, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()


def sign_up(url: str, role: str) -> tuple[Person, str]:
    name = f"r{secrets.token_hex(6)}"
    body = {"email": f"{name}@example.com", "username": name, "password": PASSWORD, "role": role}
    session = Person(url).call("POST", "/v1/signup", body)["session"]
    key = Person(url, session["accessToken"]).call("POST", "/v1/keys", {"name": "rest"})
    return Person(url, key["secret"]), name


@pytest.fixture(params=["envoy", "shim"])
def url(request: pytest.FixtureRequest, platform: Platform) -> str:
    return platform.rest if request.param == "envoy" else f"http://{platform.addresses()['gateway']}"


def upload(person: Person, data: bytes) -> str:
    """In two pieces; the second begins where the service says it left off."""
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    body = {"filename": "model.onnx", "sizeBytes": len(data), "digest": digest}
    found = person.call("POST", "/v1/uploads", body)
    if found["state"] == "STATE_COMPLETE":
        return digest
    path, half = f"/v1/uploads/{found['uploadId']}", len(data) // 2
    assert person.http.post(f"{path}:write?offset=0", content=data[:half]).status_code == 200
    offset = int(person.call("GET", path)["offset"])
    assert offset == half
    assert person.http.post(f"{path}:write?offset={offset}", content=data[offset:]).status_code == 200
    assert person.call("POST", f"{path}:complete", {})["state"] == "STATE_COMPLETE"
    return digest


def test_main_job_over_rest(platform: Platform, url: str) -> None:
    publisher, handle = sign_up(url, "ROLE_PUBLISHER")
    graph = graphs.tiny()
    digest = upload(publisher, graph)
    answer = publisher.http.get(f"/v1/artifacts/{digest}?offset=7")
    assert answer.content == graph[7:]

    described = {"name": "net", "summary": "a test", "category": "other", "task": "test", "license": "MIT"}
    publisher.call("POST", "/v1/models", described)
    model, version = f"/v1/models/{handle}/net", f"/v1/models/{handle}/net/versions/1.0.0"
    publisher.call("POST", f"{model}/versions", {"version": "1.0.0", "digest": digest})
    deadline = time.monotonic() + 60
    while (found := publisher.call("GET", version))["state"] == "VERSION_STATE_VALIDATING":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert found["state"] == "VERSION_STATE_DRAFT", found["findings"]
    publisher.call("POST", f"{version}:submit", {})
    signed = Person(url).call("POST", "/v1/signin", {"email": ADMIN_EMAIL, "password": platform.admin_password})
    Person(url, signed["session"]["accessToken"]).call("POST", f"{version}:approve", {})
    price = {"components": [{"meter": "requests", "nanosPerMillion": str(1000 * USD)}]}
    publisher.call("PUT", f"{model}/price", price)
    assert publisher.call("POST", f"{version}:publish", {})["state"] == "VERSION_STATE_PUBLISHED"

    consumer, _ = sign_up(url, "ROLE_CONSUMER")
    consumer.call("POST", "/v1/wallet:topUp", {"amountNanos": str(USD)}, headers={"idempotency-key": "first"})
    signature = consumer.call("GET", f"{model}:signature")["signature"]
    inputs = [{"name": spec["name"], "data": [[1, 2, 3, 4]]} for spec in signature["inputs"]]
    answer = consumer.http.post(f"{model}:predict", json={"inputs": inputs})
    assert answer.status_code == 200, answer.text
    assert answer.headers["mercat-cost-nanos"] == answer.json()["costNanos"] == "1000000"
    request_id = answer.headers["mercat-request-id"]
    assert answer.json()["requestId"] == request_id

    deadline = time.monotonic() + 20
    while consumer.http.get(f"/v1/usage/{request_id}").status_code == 404:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert consumer.call("GET", f"/v1/usage/{request_id}")["costNanos"] == "1000000"
    while int(consumer.call("GET", "/v1/wallet")["balanceNanos"]) != USD - 1_000_000:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_idempotency_key_replays_the_first_answer(platform: Platform, url: str) -> None:
    person, _ = sign_up(url, "ROLE_CONSUMER")
    once = {"idempotency-key": "k1"}
    first = person.call("POST", "/v1/keys", {"name": "a"}, headers=once)
    assert person.call("POST", "/v1/keys", {"name": "a"}, headers=once) == first
    other = person.http.post("/v1/keys", json={"name": "b"}, headers=once)
    assert other.status_code == 400
    assert other.json()["error"]["details"][0]["reason"] == "IDEMPOTENCY_KEY_REUSED"


def test_refusals_have_the_one_shape(platform: Platform, url: str) -> None:
    nobody = Person(url).http
    person, _ = sign_up(url, "ROLE_CONSUMER")
    cases = [
        (nobody.get("/v1/me"), 401, "UNAUTHENTICATED"),
        (nobody.get("/v1/me", headers={"authorization": "Bearer mk_live_nonsense"}), 401, "UNAUTHENTICATED"),
        (nobody.get("/v1/models/nobody/nothing"), 404, "NOT_FOUND"),
        (person.http.post("/v1/models", json={"name": "x"}), 403, "PERMISSION_DENIED"),
        (person.http.post("/v1/keys", json={}), 400, "INVALID_ARGUMENT"),
    ]
    for answer, status, name in cases:
        assert answer.status_code == status, answer.text
        error = answer.json()["error"]
        assert (error["code"], error["status"]) == (status, name)
        assert error["details"][0]["metadata"]["request_id"] == answer.headers["mercat-request-id"]


def test_openai_s_dialect_lists_text_models_alone(platform: Platform, url: str) -> None:
    publisher = platform.publisher()
    model = platform.publish(publisher, graphs.tiny())
    person, _ = sign_up(url, "ROLE_CONSUMER")
    listed = person.call("GET", "/openai/v1/models")
    assert listed["object"] == "list"
    assert model not in {one["id"] for one in listed["data"]}
    refused = person.http.get(f"/openai/v1/models/{model.replace('/', '%2F')}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
    stranger = Person(url, "mk_live_nonsense").http.get("/openai/v1/models")
    assert (stranger.status_code, stranger.json()["error"]["code"]) == (401, "invalid_api_key")
    assert stranger.headers["x-request-id"] == stranger.headers["mercat-request-id"]

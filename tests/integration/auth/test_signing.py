"""Signed calls: over gRPC, REST and OpenAI's dialect, by Mercat's signer and by somebody else's."""

import json
import secrets
import time
from typing import Any

import grpc
import http_message_signatures as foreign
import httpx
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from mercat.auth.v1 import auth_pb2, keys_pb2
from mercat.inference.v1 import inference_pb2

from services.common import signatures
from services.common.errors import from_rpc_error
from services.common.signatures import ED25519, HMAC_SHA256, Signer
from tests import graphs
from tests.platform import Account, Platform

ME = auth_pb2.GetProfileRequest()
GET_PROFILE = "/mercat.auth.v1.AuthService/GetProfile"
PREDICT = "/mercat.inference.v1.InferenceService/Predict"
X = inference_pb2.Tensor(name="x", datatype="FP32", shape=[1, 4], raw=bytes(16))


def signing_key(person: Account, key_id: str, algorithm: str = ED25519) -> Signer:
    if algorithm == HMAC_SHA256:
        request = keys_pb2.CreateSigningKeyRequest(key_id=key_id, algorithm=auth_pb2.SIGNATURE_ALGORITHM_HMAC_SHA256)
        made = person.keys.CreateSigningKey(request)
        return Signer(made.signing_key.signing_key_id, algorithm, made.secret)
    private = Ed25519PrivateKey.generate()
    request = keys_pb2.CreateSigningKeyRequest(
        key_id=key_id, algorithm=auth_pb2.SIGNATURE_ALGORITHM_ED25519,
        public_key=private.public_key().public_bytes_raw(),
    )  # fmt: skip
    made = person.keys.CreateSigningKey(request)
    assert not made.secret
    return Signer(made.signing_key.signing_key_id, algorithm, private.private_bytes_raw())


@pytest.fixture(scope="module")
def person(platform: Platform) -> Account:
    return platform.session(platform.sign_up())


@pytest.fixture(scope="module")
def model(platform: Platform) -> str:
    return platform.publish(platform.publisher(), graphs.tiny())


@pytest.fixture(scope="module", params=[ED25519, HMAC_SHA256])
def signed(request: Any, person: Account) -> tuple[Account, Signer]:
    """A key whose calls must be signed, and what signs them."""
    made = person.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="signed"))
    signer = signing_key(person, made.api_key.key_id, request.param)
    rules = auth_pb2.KeyRules(require_signature=True)
    person.keys.UpdateApiKey(keys_pb2.UpdateApiKeyRequest(key_id=made.api_key.key_id, rules=rules))
    return Account(person.platform, made.secret), signer


def test_a_key_that_demands_signatures_has_something_to_sign_with(person: Account) -> None:
    rules = auth_pb2.KeyRules(require_signature=True)
    with pytest.raises(grpc.RpcError) as caught:
        person.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="dumb", rules=rules))
    error = from_rpc_error(caught.value)
    assert [v.field for v in error.violations] == ["rules.require_signature"]  # type: ignore[attr-defined]
    made = person.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="dumb"))
    update = keys_pb2.UpdateApiKeyRequest(key_id=made.api_key.key_id, rules=rules)
    assert reason(person.keys.UpdateApiKey, update) == "INVALID_FIELDS"
    signing_key(person, made.api_key.key_id)
    assert person.keys.UpdateApiKey(update).api_key.rules.require_signature


def reason(call: Any, request: Any, metadata: dict[str, str] | None = None) -> str:
    try:
        call(request, metadata=list((metadata or {}).items()))
    except grpc.RpcError as e:
        return from_rpc_error(e).reason
    return ""


def now() -> int:
    return int(time.time())


def of(signer: Signer, path: str, request: Any, platform: Platform, **more: Any) -> dict[str, str]:
    return signer.headers("POST", platform.grpc, path, request.SerializeToString(), **{"now": now(), **more})


def test_a_call_without_a_signature_is_refused_where_one_is_required(
    platform: Platform, signed: tuple[Account, Signer]
) -> None:
    key, _ = signed
    assert reason(key.auth.GetProfile, ME) == "SIGNATURE_MISSING"
    assert reason(key.inference.Predict, inference_pb2.PredictRequest(model="a/b")) == "SIGNATURE_MISSING"
    headers = {"authorization": f"Bearer {key.api_key}"}
    for path in ("/v1/me", "/openai/v1/models"):
        answer = httpx.get(platform.rest + path, headers=headers)
        assert answer.status_code == 401, answer.text
    answer = httpx.get(f"{platform.rest}/v1/me", headers=headers)
    assert answer.json()["error"]["details"][0]["reason"] == "SIGNATURE_MISSING"
    others = {"signature-input": 'cdn=("@method");tag="cdn"', "signature": "cdn=:AA==:"}
    assert reason(key.auth.GetProfile, ME, others) == "SIGNATURE_MISSING"


def test_signed_calls_go_through_by_grpc(platform: Platform, signed: tuple[Account, Signer], model: str) -> None:
    key, signer = signed
    assert reason(key.auth.GetProfile, ME, of(signer, GET_PROFILE, ME, platform)) == ""
    predict = inference_pb2.PredictRequest(model=model, inputs=[X])
    assert reason(key.inference.Predict, predict, of(signer, PREDICT, predict, platform)) == ""


def test_signed_requests_go_through_by_rest(platform: Platform, signed: tuple[Account, Signer], model: str) -> None:
    key, signer = signed
    bearer = {"authorization": f"Bearer {key.api_key}"}
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [[1, 2, 3, 4]]}]}).encode()
    for verb, path, query, content in (
        ("GET", "/v1/me", "", None),
        ("GET", "/v1/keys", "pageSize=5", None),
        ("GET", "/openai/v1/models", "", None),
        ("POST", f"/v1/models/{model}:predict", "", body),
    ):
        headers = signer.headers(verb, platform.grpc, path, content, now=now(), query=query)
        url = f"{platform.rest}{path}" + (f"?{query}" if query else "")
        sent = {**bearer, **headers, "content-type": "application/json"}
        answer = httpx.request(verb, url, headers=sent, content=content)
        assert answer.status_code == 200, (path, answer.text)
        again = httpx.request(verb, url, headers=sent, content=content)
        assert again.status_code == 401, again.text
        if not path.startswith("/openai"):
            assert again.json()["error"]["details"][0]["reason"] == "SIGNATURE_REPLAYED"
        if content is not None:
            fresh = {**sent, **signer.headers(verb, platform.grpc, path, content, now=now(), query=query)}
            altered = httpx.request(verb, url, headers=fresh, content=content.replace(b"1", b"9", 1))
            assert altered.status_code == 401, altered.text
            assert altered.json()["error"]["details"][0]["reason"] == "SIGNATURE_INVALID"
            bare = signer.headers(verb, platform.grpc, path, None, now=now())
            assert httpx.request(verb, url, headers={**bearer, **bare}, content=content).status_code == 401
        if query:
            fresh = {**sent, **signer.headers(verb, platform.grpc, path, content, now=now(), query=query)}
            assert httpx.request(verb, f"{url}0", headers=fresh).status_code == 401


def test_what_is_not_as_it_was_signed_is_refused(platform: Platform, signed: tuple[Account, Signer]) -> None:
    key, signer = signed
    listing = keys_pb2.GetApiKeyRequest(key_id="key_x")
    good = of(signer, GET_PROFILE, ME, platform)
    other_body = auth_pb2.ListApiKeysRequest(page_size=3)
    list_keys = "/mercat.auth.v1.AuthService/ListApiKeys"
    nobody = Signer("sgk_00000000000000000000000000", signer.algorithm, signer.key)
    stranger = Signer(signer.key_id, signer.algorithm, bytes(32))
    for what, call, request, headers, expected in (
        ("another method", key.keys.GetApiKey, listing, good, "SIGNATURE_INVALID"),
        ("another body", key.auth.ListApiKeys, other_body,
         of(signer, list_keys, auth_pb2.ListApiKeysRequest(page_size=4), platform), "SIGNATURE_INVALID"),
        ("another digest", key.auth.ListApiKeys, other_body,
         {**of(signer, list_keys, auth_pb2.ListApiKeysRequest(page_size=4), platform),
          "content-digest": signatures.digest(other_body.SerializeToString())}, "SIGNATURE_INVALID"),
        ("another server", key.auth.GetProfile, ME,
         signer.headers("POST", "example.com", GET_PROFILE, b"", now=now()), "SIGNATURE_INVALID"),
        ("no digest", key.auth.GetProfile, ME,
         signer.headers("POST", platform.grpc, GET_PROFILE, None, now=now()), "SIGNATURE_INVALID"),
        ("unknown key", key.auth.GetProfile, ME, of(nobody, GET_PROFILE, ME, platform), "SIGNATURE_INVALID"),
        ("other secret", key.auth.GetProfile, ME, of(stranger, GET_PROFILE, ME, platform), "SIGNATURE_INVALID"),
        ("too old", key.auth.GetProfile, ME,
         of(signer, GET_PROFILE, ME, platform, now=now() - 400, seconds=10_000), "SIGNATURE_EXPIRED"),
        ("expired", key.auth.GetProfile, ME,
         of(signer, GET_PROFILE, ME, platform, now=now() - 90, seconds=10), "SIGNATURE_EXPIRED"),
        ("of the future", key.auth.GetProfile, ME,
         of(signer, GET_PROFILE, ME, platform, now=now() + 120), "SIGNATURE_EXPIRED"),
        ("a guess of the edge's word", key.auth.GetProfile, ME,
         {**of(signer, GET_PROFILE, auth_pb2.ListApiKeysRequest(page_size=4), platform), "mercat-edge": "AAAA"},
         "SIGNATURE_INVALID"),
    ):  # fmt: skip
        assert reason(call, request, headers) == expected, what
    assert reason(key.auth.GetProfile, ME, good) == ""  # none of it used its nonce up


def test_a_call_goes_through_once(platform: Platform, signed: tuple[Account, Signer]) -> None:
    key, signer = signed
    headers = of(signer, GET_PROFILE, ME, platform)
    assert [reason(key.auth.GetProfile, ME, headers) for _ in range(3)] == [
        "",
        "SIGNATURE_REPLAYED",
        "SIGNATURE_REPLAYED",
    ]


def test_an_expired_signature_may_be_as_old_as_clocks_differ_and_no_older(
    platform: Platform, signed: tuple[Account, Signer]
) -> None:
    key, signer = signed
    for age, expected in ((290, ""), (310, "SIGNATURE_EXPIRED"), (-50, "")):
        headers = of(signer, GET_PROFILE, ME, platform, now=now() - age, seconds=10_000)
        assert reason(key.auth.GetProfile, ME, headers) == expected, age


def test_where_none_is_required_a_signature_is_checked_all_the_same(platform: Platform, person: Account) -> None:
    made = person.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="k"))
    key, signer = Account(platform, made.secret), signing_key(person, made.api_key.key_id)
    assert reason(key.auth.GetProfile, ME) == ""
    deadline = time.monotonic() + 20
    forged = {**of(signer, GET_PROFILE, ME, platform), "signature": "mercat=:AAAA:"}
    while reason(key.auth.GetProfile, ME, forged) != "SIGNATURE_INVALID":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert reason(key.auth.GetProfile, ME, of(signer, GET_PROFILE, ME, platform)) == ""
    listed = person.keys.ListSigningKeys(keys_pb2.ListSigningKeysRequest(key_id=made.api_key.key_id)).signing_keys
    assert [k.signing_key_id for k in listed] == [signer.key_id]
    gone = keys_pb2.DeleteSigningKeyRequest(key_id=made.api_key.key_id, signing_key_id=signer.key_id)
    person.keys.DeleteSigningKey(gone)
    assert reason(person.keys.DeleteSigningKey, gone) == "SIGNING_KEY_NOT_FOUND"


def test_a_key_has_five_signing_keys_at_most_and_they_are_keys(person: Account) -> None:
    made = person.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="k")).api_key
    for algorithm, public, field in (
        (auth_pb2.SIGNATURE_ALGORITHM_ED25519, b"short", "public_key"),
        (auth_pb2.SIGNATURE_ALGORITHM_ED25519, b"", "public_key"),
        (auth_pb2.SIGNATURE_ALGORITHM_HMAC_SHA256, bytes(32), "public_key"),
        (0, b"", "algorithm"),
    ):
        request = keys_pb2.CreateSigningKeyRequest(key_id=made.key_id, algorithm=algorithm, public_key=public)
        with pytest.raises(grpc.RpcError) as caught:
            person.keys.CreateSigningKey(request)
        assert [v.field for v in from_rpc_error(caught.value).violations] == [field]
    for _ in range(5):
        signing_key(person, made.key_id)
    hmac = keys_pb2.CreateSigningKeyRequest(key_id=made.key_id, algorithm=auth_pb2.SIGNATURE_ALGORITHM_HMAC_SHA256)
    assert reason(person.keys.CreateSigningKey, hmac) == "TOO_MANY_SIGNING_KEYS"


def test_secrets_of_hmac_lie_nowhere_in_clear(platform: Platform, person: Account) -> None:
    made = person.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="k")).api_key
    signer = signing_key(person, made.key_id, HMAC_SHA256)
    sealed = platform.value(f"SELECT sealed_secret FROM auth.signing_keys WHERE id = '{signer.key_id}'")
    assert sealed
    assert signer.key not in sealed


class _Resolver(foreign.HTTPSignatureKeyResolver):
    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    def resolve_private_key(self, key_id: str) -> Any:
        if self._signer.algorithm == HMAC_SHA256:
            return self._signer.key
        return Ed25519PrivateKey.from_private_bytes(self._signer.key)

    def resolve_public_key(self, key_id: str) -> Any:
        raise AssertionError("it only signs")


def test_somebody_else_s_signer_is_understood(platform: Platform, signed: tuple[Account, Signer], model: str) -> None:
    """http-message-signatures, the library that is used for this most in Python."""
    key, signer = signed
    algorithm = foreign.algorithms.HMAC_SHA256 if signer.algorithm == HMAC_SHA256 else foreign.algorithms.ED25519
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [[1, 2, 3, 4]]}
    body = json.dumps({"inputs": [tensor]}).encode()
    request = requests.Request(
        "POST", f"{platform.rest}/v1/models/{model}:predict", data=body,
        headers={"authorization": f"Bearer {key.api_key}", "content-type": "application/json", "host": platform.grpc},
    ).prepare()  # fmt: skip
    foreign.HTTPMessageSigner(signature_algorithm=algorithm, key_resolver=_Resolver(signer)).sign(
        request, body=body, key_id=signer.key_id, nonce=secrets.token_hex(), tag="mercat", label="theirs",
        covered_component_ids=("@method", "@authority", "@path", "content-digest", "content-type"),
    )  # fmt: skip
    with requests.Session() as session:
        answer = session.send(request)
    assert answer.status_code == 200, answer.text

"""What API keys are held to, and how they get other secrets: rules by gRPC, REST and OpenAI's dialect alike."""

import json
import time
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from mercat.auth.v1 import auth_pb2, auth_pb2_grpc, keys_pb2, organisation_pb2
from mercat.common.v1 import limits_pb2
from mercat.inference.v1 import inference_pb2

from services.auth import keys
from services.common.errors import from_rpc_error
from services.common.rpc.addresses import DOOR_KEY, EDGE_KEY
from tests import graphs
from tests.expect import fails
from tests.platform import Account, Platform

ME = auth_pb2.GetProfileRequest()
X = inference_pb2.Tensor(name="x", datatype="FP32", shape=[1, 4], raw=bytes(16))


@pytest.fixture
def person(platform: Platform) -> Account:
    return platform.session(platform.sign_up())


@pytest.fixture(scope="module")
def models(platform: Platform) -> list[str]:
    """Two of one publisher."""
    publisher = platform.publisher()
    return [platform.publish(publisher, graphs.tiny()) for _ in range(2)]


def make(person: Account, **options: Any) -> tuple[Account, auth_pb2.ApiKey]:
    made = person.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="k", **options))
    return Account(person.platform, made.secret), made.api_key


def rules(**given: list[str]) -> auth_pb2.KeyRules:
    return auth_pb2.KeyRules(**given)  # type: ignore[arg-type]


def ended(key: Account, seconds: float = 5.0) -> float:
    """Seconds until a secret is refused everywhere that was good a moment ago."""
    began = time.monotonic()
    predict = inference_pb2.PredictRequest(model="nobody/nothing")
    for call, request in ((key.auth.GetProfile, ME), (key.inference.Predict, predict)):
        while fails_with(call, request) != "CREDENTIAL_INVALID":
            assert time.monotonic() - began < seconds
            time.sleep(0.02)
    return time.monotonic() - began


def fails_with(call: Any, request: Any) -> str:
    try:
        call(request)
    except grpc.RpcError as e:
        return from_rpc_error(e).reason
    return ""


def until(expected: str, call: Any, request: Any) -> None:
    """A change is felt within five seconds."""
    began = time.monotonic()
    while (got := fails_with(call, request)) != expected:
        assert time.monotonic() - began < 5, got
        time.sleep(0.05)


# Addresses


def test_a_key_is_used_from_where_its_rules_say(platform: Platform, person: Account) -> None:
    """gRPC, REST and OpenAI's dialect; every address of 127.0.0.0/8 is this machine's."""
    key, _ = make(person, rules=rules(allowed_networks=["127.0.0.0/24"], denied_networks=["127.0.0.2"]))
    assert key.auth.GetProfile(ME).profile.user_id == person.profile.user_id
    headers = {"authorization": f"Bearer {key.api_key}"}
    for address, status in (("127.0.0.1", 200), ("127.0.0.2", 403), ("127.0.1.1", 403), ("127.0.0.3", 200)):
        with httpx.Client(transport=httpx.HTTPTransport(local_address=address)) as client:
            for path in ("/v1/me", "/openai/v1/models"):
                answer = client.get(platform.rest + path, headers=headers)
                assert answer.status_code == status, (address, path, answer.text)
                if status == 403 and path == "/v1/me":
                    detail = answer.json()["error"]["details"][0]
                    assert detail["reason"] == "KEY_ADDRESS_DENIED"
                    assert detail["metadata"]["address"] == address


SPOOFED = [
    {"x-forwarded-for": "192.0.2.7"},
    {"x-forwarded-for": "192.0.2.7, 192.0.2.7"},
    {"forwarded": "for=192.0.2.7", "x-real-ip": "192.0.2.7", "x-envoy-external-address": "192.0.2.7"},
    {DOOR_KEY: "guess 192.0.2.7", EDGE_KEY: "192.0.2.7"},
]


@pytest.mark.parametrize("headers", SPOOFED)
def test_what_a_caller_says_of_its_address_changes_nothing(
    platform: Platform, person: Account, headers: dict[str, str]
) -> None:
    """Through the front door, through the web edge, and at the processes' own ports."""
    key, _ = make(person, rules=rules(allowed_networks=["192.0.2.0/24"]))
    said = list(headers.items())
    assert fails(key.auth.GetProfile, ME, metadata=said).reason == "KEY_ADDRESS_DENIED"
    for path in ("/v1/me", "/openai/v1/models"):
        answer = httpx.get(platform.rest + path, headers={"authorization": f"Bearer {key.api_key}", **headers})
        assert answer.status_code == 403, answer.text
    addresses = platform.addresses()
    with grpc.insecure_channel(addresses["control"]) as channel:
        stub = auth_pb2_grpc.AuthServiceStub(channel)
        assert fails(stub.GetProfile, ME, metadata=[*key.metadata, *said]).reason == "KEY_ADDRESS_DENIED"
    answer = httpx.get(
        f"http://{addresses['gateway']}/v1/me", headers={"authorization": f"Bearer {key.api_key}", **headers}
    )
    assert answer.status_code == 403, answer.text


def test_the_audit_log_says_where_a_call_through_the_web_edge_came_from(platform: Platform, person: Account) -> None:
    key, _ = make(person)
    with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.9")) as client:
        headers = {"authorization": f"Bearer {key.api_key}"}
        made = client.post(f"{platform.rest}/v1/keys", json={"name": "second"}, headers=headers).json()["apiKey"]
    own = person.profile.org_id
    query = f"SELECT host(ip_address) FROM auth.audit_logs WHERE org_id = '{own}' AND resource_id = '{made['keyId']}'"
    deadline = time.monotonic() + 10
    while (seen := platform.value(query)) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert seen == "127.0.0.9"


# Models


def test_a_key_calls_the_models_of_its_rules(platform: Platform, person: Account, models: list[str]) -> None:
    mine, other = models
    key, made = make(person, rules=rules(models=[mine]))
    predict = {name: inference_pb2.PredictRequest(model=name, inputs=[X]) for name in models}
    key.inference.Predict(predict[mine])
    error = fails(key.inference.Predict, predict[other])
    assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "KEY_MODEL_DENIED")
    assert error.metadata["model"] == other
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [[1, 2, 3, 4]]}]}
    headers = {"authorization": f"Bearer {key.api_key}"}
    codes = [
        httpx.post(f"{platform.rest}/v1/models/{name}:predict", json=body, headers=headers).status_code
        for name in models
    ]
    assert codes == [200, 403]
    batch = inference_pb2.BatchPredictRequest(requests=list(predict.values()))
    answers = key.inference.BatchPredict(batch).results
    assert [r.HasField("error") for r in answers] == [False, True]
    # A key of all models of a publisher, from now on.
    wider = rules(models=[f"{mine.partition('/')[0]}/*"])
    person.keys.UpdateApiKey(keys_pb2.UpdateApiKeyRequest(key_id=made.key_id, rules=wider))
    until("", key.inference.Predict, predict[other])


def test_a_limit_that_a_key_was_made_with_holds(person: Account, models: list[str]) -> None:
    key, made = make(person, limit=limits_pb2.CallLimit(daily=limits_pb2.CallQuota(hard=2)))
    assert made.limit.daily.hard == 2
    request = inference_pb2.PredictRequest(model=models[0], inputs=[X])
    ends = [fails_with(key.inference.Predict, request) for _ in range(3)]
    assert ends == ["", "", "QUOTA_EXCEEDED"]


# Changes


def test_a_key_is_changed_where_it_is_given_something(platform: Platform, person: Account) -> None:
    key, made = make(person, scopes=["keys:read", "usage:read"], expires_at=Timestamp(seconds=2**33))
    assert person.keys.GetApiKey(keys_pb2.GetApiKeyRequest(key_id=made.key_id)).api_key == made
    update = keys_pb2.UpdateApiKeyRequest(key_id=made.key_id, name="other", etag=made.etag)
    renamed = person.keys.UpdateApiKey(update).api_key
    expected = auth_pb2.ApiKey()
    expected.CopyFrom(made)
    expected.name, expected.etag = "other", renamed.etag
    assert renamed == expected
    assert fails(person.keys.UpdateApiKey, update).reason == "ETAG_MISMATCH"
    ruled = keys_pb2.UpdateApiKeyRequest(
        key_id=made.key_id, rules=rules(denied_networks=["127.0.0.1"]), scopes=["keys:read"], never_expires=True
    )
    changed = person.keys.UpdateApiKey(ruled).api_key
    assert list(changed.rules.denied_networks) == ["127.0.0.1/32"]
    assert (list(changed.scopes), changed.HasField("expires_at")) == (["keys:read"], False)
    until("KEY_ADDRESS_DENIED", key.auth.GetProfile, ME)
    empty = keys_pb2.UpdateApiKeyRequest(key_id=made.key_id)
    empty.rules.SetInParent()
    assert not person.keys.UpdateApiKey(empty).api_key.HasField("rules")
    until("", key.auth.GetProfile, ME)
    soon = keys_pb2.UpdateApiKeyRequest(key_id=made.key_id, expires_at=Timestamp(seconds=int(time.time()) + 1))
    person.keys.UpdateApiKey(soon)
    until("CREDENTIAL_INVALID", key.auth.GetProfile, ME)


def test_changes_that_make_no_sense_are_refused_by_field(person: Account) -> None:
    _, made = make(person)
    for field, given in {
        "never_expires": {"never_expires": True, "expires_at": Timestamp(seconds=2**33)},
        "expires_at": {"expires_at": Timestamp(seconds=1)},
        "rules.allowed_networks[0]": {"rules": rules(allowed_networks=["10.0.0.1/8"])},
        "rules.models[0]": {"rules": rules(models=["*"])},
        "name": {"name": ""},
        "scopes": {"scopes": ["keys:fly"]},
    }.items():
        error = fails(person.keys.UpdateApiKey, keys_pb2.UpdateApiKeyRequest(key_id=made.key_id, **given))  # type: ignore[arg-type]
        assert [v.field.partition("[")[0] for v in error.violations] == [field.partition("[")[0]]
    for seconds in (-1, 31 * 86400, 10**14):
        request = keys_pb2.RotateApiKeyRequest(key_id=made.key_id, overlap=Duration(seconds=seconds))
        assert [v.field for v in fails(person.keys.RotateApiKey, request).violations] == ["overlap"]


def test_a_key_with_rules_does_not_get_rid_of_them(person: Account) -> None:
    key, made = make(person, rules=rules(allowed_networks=["127.0.0.0/8"]))
    key.keys.GetApiKey(keys_pb2.GetApiKeyRequest(key_id=made.key_id))
    unlimited = auth_pb2.SetKeyLimitRequest(key_id=made.key_id)
    for call, request in (
        (key.auth.CreateApiKey, auth_pb2.CreateApiKeyRequest(name="free")),
        (key.keys.UpdateApiKey, keys_pb2.UpdateApiKeyRequest(key_id=made.key_id, name="x")),
        (key.keys.RotateApiKey, keys_pb2.RotateApiKeyRequest(key_id=made.key_id)),
        (key.limits.SetKeyLimit, unlimited),
    ):
        error = fails(call, request)
        assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "KEY_RESTRICTED")
    key.auth.RevokeApiKey(auth_pb2.RevokeApiKeyRequest(key_id=made.key_id))  # what takes away is free


# Rotation


def test_both_secrets_are_good_until_the_overlap_ends(platform: Platform, person: Account) -> None:
    old, made = make(person, rules=rules(models=["ada/*"]), scopes=["keys:read", "inference:call"])
    old.auth.GetProfile(ME)
    request = keys_pb2.RotateApiKeyRequest(key_id=made.key_id, overlap=Duration(seconds=3))
    rotated, began = person.keys.RotateApiKey(request), time.monotonic()
    new = Account(platform, rotated.secret)
    assert rotated.secret != old.api_key
    assert rotated.secret.startswith(rotated.api_key.prefix)
    assert (rotated.api_key.key_id, rotated.api_key.rules) == (made.key_id, made.rules)
    left = rotated.api_key.previous_expires_at.ToMilliseconds() / 1e3 - time.time()
    assert 1 < left <= 3.1
    both = [account.auth.ListApiKeys(auth_pb2.ListApiKeysRequest()).api_keys[0].key_id for account in (old, new)]
    assert both == [made.key_id] * 2
    assert fails(person.keys.RotateApiKey, request).reason == "ROTATION_UNDER_WAY"
    ended(old, 3 + 5)
    assert time.monotonic() - began > 2.5
    new.auth.GetProfile(ME)
    again = person.keys.RotateApiKey(request)  # the overlap is over
    Account(platform, again.secret).auth.GetProfile(ME)


def test_what_was_used_last_is_known_of_both_secrets(platform: Platform, person: Account) -> None:
    old, made = make(person)
    rotated = person.keys.RotateApiKey(keys_pb2.RotateApiKeyRequest(key_id=made.key_id)).api_key
    day = rotated.previous_expires_at.ToMilliseconds() / 1e3 - time.time()
    assert abs(day - 24 * 3600) < 60
    assert not rotated.HasField("last_used_at")
    old.auth.GetProfile(ME)
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        seen = person.keys.GetApiKey(keys_pb2.GetApiKeyRequest(key_id=made.key_id)).api_key
        if seen.HasField("previous_last_used_at"):
            break
        time.sleep(0.2)
    assert abs(seen.previous_last_used_at.ToMilliseconds() / 1e3 - time.time()) < 60
    assert not seen.HasField("last_used_at")


def test_an_overlap_is_ended_at_once(platform: Platform, person: Account) -> None:
    old, made = make(person)
    request = keys_pb2.RotateApiKeyRequest(key_id=made.key_id)
    new = Account(platform, person.keys.RotateApiKey(request).secret)
    old.auth.GetProfile(ME)
    end = keys_pb2.EndApiKeyOverlapRequest(key_id=made.key_id)
    assert not person.keys.EndApiKeyOverlap(end).api_key.HasField("previous_expires_at")
    ended(old)
    new.auth.GetProfile(ME)
    assert fails(person.keys.EndApiKeyOverlap, end).reason == "NO_ROTATION_UNDER_WAY"


def test_a_rotation_without_overlap_ends_every_secret_before(platform: Platform, person: Account) -> None:
    first, made = make(person)
    second = Account(platform, person.keys.RotateApiKey(keys_pb2.RotateApiKeyRequest(key_id=made.key_id)).secret)
    now = keys_pb2.RotateApiKeyRequest(key_id=made.key_id, overlap=Duration())
    third = Account(platform, person.keys.RotateApiKey(now).secret)
    ended(first)
    ended(second)
    third.auth.GetProfile(ME)


def test_a_revoked_key_is_revoked_with_both_secrets(platform: Platform, person: Account) -> None:
    old, made = make(person)
    new = Account(platform, person.keys.RotateApiKey(keys_pb2.RotateApiKeyRequest(key_id=made.key_id)).secret)
    person.auth.RevokeApiKey(auth_pb2.RevokeApiKeyRequest(key_id=made.key_id))
    ended(old)
    ended(new)
    assert fails(person.keys.RotateApiKey, keys_pb2.RotateApiKeyRequest(key_id=made.key_id)).reason == "KEY_ENDED"


def test_a_repeated_rotation_is_the_first_one(person: Account) -> None:
    _, made = make(person)
    request, once = keys_pb2.RotateApiKeyRequest(key_id=made.key_id), [("idempotency-key", "once")]
    assert len({person.keys.RotateApiKey(request, metadata=once).secret for _ in range(3)}) == 1


# Whose keys


def test_nobody_gets_a_secret_with_more_than_they_hold(platform: Platform, person: Account) -> None:
    _, wide = make(person, scopes=["keys:write", "billing:write"])
    narrow, _ = make(person, scopes=["keys:write"])
    request = keys_pb2.RotateApiKeyRequest(key_id=wide.key_id)
    error = fails(narrow.keys.RotateApiKey, request)
    assert (error.reason, error.metadata["scopes"]) == ("SCOPE_MISSING", "billing:write")
    person.keys.RotateApiKey(request)


def test_shared_keys_are_rotated_by_who_may_share_and_members_own_keys_by_nobody_else(platform: Platform) -> None:
    owner = platform.organisation(platform.sign_up())
    developer = platform.join(owner, platform.sign_up(), "developer")
    shared = owner.service_accounts.CreateOrganisationKey(
        organisation_pb2.CreateOrganisationKeyRequest(
            name="shared", scopes=["usage:read"], rules=rules(denied_networks=["192.0.2.0/24"])
        )
    )
    assert list(shared.api_key.rules.denied_networks) == ["192.0.2.0/24"]
    _, own = make(developer)
    for key_id, account, reason in (
        (shared.api_key.key_id, owner, ""),
        (shared.api_key.key_id, developer, "API_KEY_NOT_FOUND"),
        (own.key_id, developer, ""),
        (own.key_id, owner, "API_KEY_NOT_FOUND"),
    ):
        assert fails_with(account.keys.RotateApiKey, keys_pb2.RotateApiKeyRequest(key_id=key_id)) == reason
        assert fails_with(account.keys.GetApiKey, keys_pb2.GetApiKeyRequest(key_id=key_id)) == reason


# Leaks


def mails(platform: Platform, address: str, count: int) -> list[dict[str, Any]]:
    """What was written to an address, the newest first; the platform has no SMTP server."""
    deadline = time.monotonic() + 15
    while True:
        said = platform.command("mail", address, "--limit", "20", "--json")
        listed = json.loads(said.stdout)["mails"] if said.returncode == 0 else []
        found = [m for m in listed if "secret" in m["text"]]
        if len(found) >= count:
            return found
        assert time.monotonic() < deadline, said
        time.sleep(0.3)


def test_a_leaked_secret_ends_its_key_and_the_owner_hears_of_it(platform: Platform) -> None:
    person = platform.sign_up()
    old, made = make(person)
    new = Account(platform, person.keys.RotateApiKey(keys_pb2.RotateApiKeyRequest(key_id=made.key_id)).secret)
    found = keys_pb2.RevokeLeakedKeyRequest(secret=f" {new.api_key}\n", found_at="https://example.com/paste")
    assert platform.anonymous.keys.RevokeLeakedKey(found) == keys_pb2.RevokeLeakedKeyResponse()
    ended(new)
    ended(old)
    assert not person.keys.GetApiKey(keys_pb2.GetApiKeyRequest(key_id=made.key_id)).api_key.is_active
    (mail,) = mails(platform, person.email, 1)
    assert made.key_id in mail["text"]
    assert "was revoked" in mail["subject"]
    assert new.api_key not in mail["text"]
    own = f"org_id = '{person.profile.org_id}'"
    query = f"SELECT metadata::text FROM auth.audit_logs WHERE {own} AND action LIKE '%Leaked%'"
    deadline = time.monotonic() + 10
    while (kept := platform.value(query)) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "https://example.com/paste" in kept
    assert new.api_key[8:] not in kept
    assert "[secret]" in kept


def test_a_secret_that_was_replaced_ends_alone(platform: Platform) -> None:
    person = platform.sign_up()
    old, made = make(person)
    new = Account(platform, person.keys.RotateApiKey(keys_pb2.RotateApiKeyRequest(key_id=made.key_id)).secret)
    answer = httpx.post(f"{platform.rest}/v1/keys:revokeLeaked", json={"secret": old.api_key})
    assert (answer.status_code, answer.json()) == (200, {})
    ended(old)
    new.auth.GetProfile(ME)
    (mail,) = mails(platform, person.email, 1)
    assert "has ended" in mail["subject"]


def test_whether_there_was_a_key_is_not_told(platform: Platform, person: Account) -> None:
    gone, made = make(person)
    person.auth.RevokeApiKey(auth_pb2.RevokeApiKeyRequest(key_id=made.key_id))
    good, _ = make(person)
    before = platform.value("SELECT count(*) FROM auth.audit_logs")
    never = keys.generate(test=False)
    for secret in (gone.api_key, never, "mk_live_nothing", "x", good.api_key):
        answer = httpx.post(f"{platform.rest}/v1/keys:revokeLeaked", json={"secret": secret})
        said = {
            name: value
            for name, value in answer.headers.items()
            if name not in ("date", "mercat-request-id", "ratelimit")
        }
        assert (answer.status_code, answer.text) == (200, "{}"), secret
        assert said.keys() == {"content-type", "content-length", "server", "x-content-type-options"}, said
    ended(good)
    assert platform.value("SELECT count(*) FROM auth.audit_logs") - before <= 3  # none for what is no key

"""API keys and access tokens: what they open, and how they stop doing so."""

import base64
import json
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from google.protobuf.timestamp_pb2 import Timestamp
from mercat.auth.v1 import auth_pb2, sessions_pb2, sessions_pb2_grpc
from mercat.billing.v1 import billing_pb2
from mercat.inference.v1 import inference_pb2

from services.common.errors import from_rpc_error
from tests.expect import fails
from tests.platform import PASSWORD, Account, Platform

ME = auth_pb2.GetProfileRequest()


@pytest.fixture
def person(platform: Platform) -> Account:
    return platform.sign_up()


@pytest.fixture(scope="module")
def somebody(platform: Platform) -> Account:
    """Whose account no test of this file changes."""
    return platform.sign_up()


def refused(platform: Platform, credential: str) -> str:
    """The text of the refusal of a credential."""
    error = fails(Account(platform, credential).auth.GetProfile, ME)
    assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID")
    return error.message


@pytest.fixture(scope="module")
def signing_key(platform: Platform) -> Ed25519PrivateKey:
    """The key the platform itself signs tokens with."""
    key = load_pem_private_key((platform.home / "secrets" / "jwt.pem").read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    return key


def session_of(person: Account) -> str:
    """A session that they have."""
    stub = sessions_pb2_grpc.SessionServiceStub(person.platform.channel)
    answer = stub.ListSessions(sessions_pb2.ListSessionsRequest(), metadata=person.metadata)
    return str(answer.sessions[0].session_id)


def forge(person: Account, key: Any, algorithm: str = "EdDSA", *, typ: str = "at+jwt", **claims: Any) -> str:
    """A token as the platform makes them, but for what is given."""
    kid = person.auth.GetJwks(auth_pb2.GetJwksRequest()).keys[0].kid
    now = int(time.time())
    body = {
        "iss": "mercat", "aud": "mercat", "sub": person.profile.user_id, "sid": session_of(person), "iat": now,
        "exp": now + 900, "auth_time": now, "acr": "aal1",
    }  # fmt: skip
    body |= claims
    return jwt.encode({k: v for k, v in body.items() if v is not None}, key, algorithm, {"kid": kid, "typ": typ})


def test_a_token_of_the_right_key_and_claims_opens(
    platform: Platform, somebody: Account, signing_key: Ed25519PrivateKey
) -> None:
    """What makes the refusals of the next test mean something."""
    session = Account(platform, forge(somebody, signing_key))
    assert session.auth.GetProfile(ME).profile.user_id == somebody.profile.user_id


def test_forged_tokens_are_refused(platform: Platform, somebody: Account, signing_key: Ed25519PrivateKey) -> None:
    public = signing_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    now = int(time.time())
    good = forge(somebody, signing_key)
    head, body, signature = good.split(".")
    header = json.loads(base64.urlsafe_b64decode(head + "=="))
    none = base64.urlsafe_b64encode(json.dumps({**header, "alg": "none"}).encode()).decode().rstrip("=")
    forged = {
        "alg none": forge(somebody, None, "none"),
        "alg none, signature kept": f"{none}.{body}.{signature}",
        "no signature": f"{head}.{body}.",
        "signature of another token": f"{head}.{body}.{forge(somebody, signing_key, sub='usr_x').split('.')[2]}",
        "other key": forge(somebody, Ed25519PrivateKey.generate()),
        "public key as HMAC secret": forge(somebody, public, "HS256"),
        "other audience": forge(somebody, signing_key, aud="other"),
        "no audience": forge(somebody, signing_key, aud=None),
        "other issuer": forge(somebody, signing_key, iss="other"),
        "other type": forge(somebody, signing_key, typ="JWT"),
        "expired": forge(somebody, signing_key, exp=now - 1),
        "no end": forge(somebody, signing_key, exp=None),
        "no session": forge(somebody, signing_key, sid=None),
        "unknown session": forge(somebody, signing_key, sid="ses_00000000000000000000000000"),
        "session of another": forge(somebody, signing_key, sid=session_of(platform.sign_up())),
        "no time of proof": forge(somebody, signing_key, auth_time=None),
        "unknown user": forge(somebody, signing_key, sub="usr_00000000000000000000000000"),
        "no token": "x.y.z",
        "longer than any": "x" * 5000,
    }
    for name, token in forged.items():
        try:
            refused(platform, token)
        except BaseException as e:
            raise AssertionError(name) from e


def test_public_keys_check_tokens(platform: Platform) -> None:
    signed = platform.anonymous.auth.SignUp(
        auth_pb2.SignUpRequest(
            email=f"{secrets.token_hex(6)}@example.com", username=secrets.token_hex(6), password=PASSWORD
        )
    )
    found = platform.anonymous.auth.GetJwks(auth_pb2.GetJwksRequest()).keys[0]
    key = jwt.PyJWK({n: getattr(found, n) for n in ("kty", "crv", "kid", "use", "alg", "x")})
    claims = jwt.decode(signed.session.access_token, key, algorithms=["EdDSA"], audience="mercat", issuer=platform.rest)
    assert claims["sub"] == signed.profile.user_id


def test_mistyped_keys_are_refused_without_a_look(platform: Platform, somebody: Account) -> None:
    key = somebody.api_key
    swapped = key[:20] + ("a" if key[20] != "a" else "b") + key[21:]
    for text in (swapped, key[:-1], key + "x", key.swapcase(), "mk_live_", "mk_", "mk_live_" + "!" * 38):
        assert "mistyped" in refused(platform, text) or not text.startswith("mk_")
    error = fails(platform.anonymous.auth.GetProfile, ME)
    assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_MISSING")


def test_a_key_is_found_in_either_header(platform: Platform, somebody: Account) -> None:
    for name, value in (("x-api-key", somebody.api_key), ("authorization", f"bearer {somebody.api_key}")):
        got = platform.anonymous.auth.GetProfile(ME, metadata=[(name, value)])
        assert got.profile.user_id == somebody.profile.user_id
    for value in ("Basic YTpi", "Bearer", "Bearer  "):
        error = fails(platform.anonymous.auth.GetProfile, ME, metadata=[("authorization", value)])
        assert error.reason == "CREDENTIAL_INVALID"


def make(person: Account, *scopes: str, **options: Any) -> auth_pb2.CreateApiKeyResponse:
    return person.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="k", scopes=scopes, **options))  # type: ignore[no-any-return]


def test_a_key_can_do_what_its_scopes_say(platform: Platform, person: Account) -> None:
    made = make(person, "keys:read")
    narrow = Account(platform, made.secret)
    assert list(made.api_key.scopes) == ["keys:read"]
    assert made.secret.startswith(made.api_key.prefix)
    narrow.auth.ListApiKeys(auth_pb2.ListApiKeysRequest())
    for call, request, missing in (
        (narrow.auth.CreateApiKey, auth_pb2.CreateApiKeyRequest(name="more"), "keys:write"),
        (narrow.billing.TopUpWallet, billing_pb2.TopUpWalletRequest(amount_nanos=1), "billing:write"),
        (narrow.inference.Predict, inference_pb2.PredictRequest(model="a/b"), "inference:call"),
    ):
        error = fails(call, request)
        assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")
        assert error.metadata["scopes"] == missing


def test_nobody_gives_a_scope_they_lack(platform: Platform, person: Account) -> None:
    narrow = Account(platform, make(person, "keys:write").secret)
    wider = auth_pb2.CreateApiKeyRequest(name="k", scopes=["keys:read"])
    assert fails(narrow.auth.CreateApiKey, wider).reason == "SCOPE_MISSING"
    admin = auth_pb2.CreateApiKeyRequest(name="k", scopes=["models:review"])
    assert fails(person.auth.CreateApiKey, admin).reason == "SCOPE_MISSING"
    for scopes in (["keys:fly"], ["Keys:Write"], ["x"] * 33):
        error = fails(person.auth.CreateApiKey, auth_pb2.CreateApiKeyRequest(name="k", scopes=scopes))
        assert {v.field.partition("[")[0] for v in error.violations} == {"scopes"}


def test_when_a_key_ends_is_in_the_future(platform: Platform, person: Account) -> None:
    now = int(time.time())
    for seconds in (1, now - 1, 10**12, -(10**12)):
        request = auth_pb2.CreateApiKeyRequest(name="k", expires_at=Timestamp(seconds=seconds))
        assert [v.field for v in fails(person.auth.CreateApiKey, request).violations] == ["expires_at"]
    short = Account(platform, make(person, expires_at=Timestamp(seconds=now + 2)).secret)
    assert short.auth.GetProfile(ME).profile.user_id == person.profile.user_id
    until_refused(lambda: short.auth.GetProfile(ME), 2 + 5)


def until_refused(call: Callable[[], object], seconds: float) -> float:
    """Seconds until a call's credential is refused."""
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        try:
            call()
        except grpc.RpcError as e:
            error = from_rpc_error(e)
            if error.code is grpc.StatusCode.UNAUTHENTICATED:
                return time.monotonic() - started
            assert error.code is not grpc.StatusCode.INTERNAL
        time.sleep(0.05)
    raise AssertionError(f"the credential still works after {seconds} s")


def test_a_revoked_key_stops_everywhere(platform: Platform, person: Account) -> None:
    made = make(person)
    doomed = Account(platform, made.secret)
    predict = inference_pb2.PredictRequest(model="nobody/nothing")
    doomed.auth.GetProfile(ME)
    assert (
        fails(doomed.inference.Predict, predict).code is grpc.StatusCode.INVALID_ARGUMENT
    )  # the worker knows the key now
    revoked = person.auth.RevokeApiKey(auth_pb2.RevokeApiKeyRequest(key_id=made.api_key.key_id)).api_key
    assert not revoked.is_active
    until_refused(lambda: doomed.auth.GetProfile(ME), 5)
    until_refused(lambda: doomed.inference.Predict(predict), 5)
    person.auth.GetProfile(ME)


def test_credentials_asked_for_together_are_answered_each(platform: Platform) -> None:
    """Calls of many people over and over, for longer than an answer is trusted; keys that are none among them."""
    people = [platform.sign_up() for _ in range(6)]
    tokens = [
        platform.anonymous.auth.SignIn(auth_pb2.SignInRequest(email=p.email, password=PASSWORD)).session.access_token
        for p in people[:2]
    ]
    credentials = [*((p.api_key, p) for p in people), *zip(tokens, people, strict=False)]
    wrong = [f"mk_live_{secrets.token_hex(19)}", "nothing", tokens[0] + "x"]
    until = time.monotonic() + 5

    def own(credential: str, person: Account) -> int:
        calls, account = 0, Account(platform, credential)
        while time.monotonic() < until:
            assert account.auth.GetProfile(ME).profile.user_id == person.profile.user_id
            calls += 1
        return calls

    def none(credential: str) -> None:
        while time.monotonic() < until:
            refused(platform, credential)

    with ThreadPoolExecutor(len(credentials) + len(wrong)) as pool:
        answered = [pool.submit(own, *pair) for pair in credentials]
        failed = [pool.submit(none, credential) for credential in wrong]
        assert all(future.result() > 3 for future in answered)
        for future in failed:
            future.result()


def test_keys_of_others_cannot_be_revoked(platform: Platform, person: Account, somebody: Account) -> None:
    theirs = somebody.auth.ListApiKeys(auth_pb2.ListApiKeysRequest()).api_keys[0]
    real, invented = (
        fails(person.auth.RevokeApiKey, auth_pb2.RevokeApiKeyRequest(key_id=k)) for k in (theirs.key_id, "key_x")
    )
    assert (real.code, real.reason, real.message) == (invented.code, invented.reason, invented.message)
    assert real.code is grpc.StatusCode.NOT_FOUND


def test_keys_are_listed_in_pages_without_their_secrets(person: Account) -> None:
    names = {make(person).api_key.key_id for _ in range(6)}
    listed: list[str] = []
    token = ""
    while True:
        page = person.auth.ListApiKeys(auth_pb2.ListApiKeysRequest(page_size=3, page_token=token))
        listed += [k.key_id for k in page.api_keys]
        token = page.next_page_token
        if not token:
            break
    assert listed == sorted(listed, reverse=True)
    assert len(listed) == len(set(listed)) == 7  # the one the person came with
    assert names <= set(listed)


def test_a_repeated_key_is_the_first_one(person: Account) -> None:
    request, once = auth_pb2.CreateApiKeyRequest(name="once"), [("idempotency-key", secrets.token_hex(8))]
    first = person.auth.CreateApiKey(request, metadata=once)
    again, call = person.auth.CreateApiKey.with_call(request, metadata=once)
    assert again == first
    assert dict(call.trailing_metadata())["idempotent-replayed"] == "true"
    error = fails(person.auth.CreateApiKey, auth_pb2.CreateApiKeyRequest(name="other"), metadata=once)
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "IDEMPOTENCY_KEY_REUSED")
    for bad in ("x" * 256, ""):
        error = fails(person.auth.CreateApiKey, request, metadata=[("idempotency-key", bad)])
        assert [v.field for v in error.violations] == ["idempotency-key"]


def test_the_keys_of_two_people_are_two_keys(platform: Platform, person: Account, somebody: Account) -> None:
    request, once = auth_pb2.CreateApiKeyRequest(name="once"), [("idempotency-key", secrets.token_hex(8))]
    assert person.auth.CreateApiKey(request, metadata=once) != somebody.auth.CreateApiKey(request, metadata=once)


def test_many_calls_at_once_with_one_key_make_one(person: Account) -> None:
    request, once = auth_pb2.CreateApiKeyRequest(name="once"), [("idempotency-key", secrets.token_hex(8))]

    def attempt(_: int) -> str:
        for _ in range(100):
            try:
                return str(person.auth.CreateApiKey(request, metadata=once).secret)
            except grpc.RpcError as e:
                error = from_rpc_error(e)
                assert error.reason == "IDEMPOTENCY_KEY_RUNNING"
                assert error.retry_after is not None
                time.sleep(min(error.retry_after, 0.1))
        raise TimeoutError

    with ThreadPoolExecutor(20) as pool:
        secrets_seen = set(pool.map(attempt, range(20)))
    assert len(secrets_seen) == 1
    assert len(person.auth.ListApiKeys(auth_pb2.ListApiKeysRequest()).api_keys) == 2

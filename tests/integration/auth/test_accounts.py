"""Sign-up, sign-in, sessions and the profile, as a person meets them."""

import asyncio
import base64
import json
import math
import secrets
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import asyncpg
import grpc
import psutil
import pytest
from mercat.auth.v1 import auth_pb2

from services.common.errors import from_rpc_error
from tests.expect import fails
from tests.platform import PASSWORD, Account, Platform


@pytest.fixture
def person(platform: Platform) -> Account:
    return platform.sign_up()


def sign_up(**changes: Any) -> auth_pb2.SignUpRequest:
    name = f"t{secrets.token_hex(6)}"
    fields: dict[str, Any] = {"email": f"{name}@example.com", "username": name, "password": PASSWORD}
    return auth_pb2.SignUpRequest(**{**fields, **changes})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("email", ""), ("email", "nobody"), ("email", "a b@example.com"), ("email", "x" * 250 + "@example.com"),
        ("email", "a\0b@example.com"), ("username", ""), ("username", "Ada"), ("username", "-ada"),
        ("username", "a" * 40), ("username", "ada lovelace"), ("username", "admin"), ("username", "api"),
        ("password", ""), ("password", "short"), ("password", "x" * 257), ("password", "ten long\0characters"),
        ("display_name", "x" * 101), ("display_name", "NUL \0"), ("role", auth_pb2.ROLE_ADMIN), ("role", 99),
    ],
)  # fmt: skip
def test_a_broken_rule_names_its_field(platform: Platform, field: str, value: object) -> None:
    error = fails(platform.anonymous.auth.SignUp, sign_up(**{field: value}))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")
    assert [v.field for v in error.violations] == [field]


def test_every_broken_rule_is_named(platform: Platform) -> None:
    error = fails(platform.anonymous.auth.SignUp, auth_pb2.SignUpRequest(email="x", password="y"))
    assert {v.field for v in error.violations} == {"email", "username", "password"}


def test_email_and_username_are_taken_once(platform: Platform, person: Account) -> None:
    for changes, field in (
        ({"email": person.email.upper()}, "email"),
        ({"username": person.profile.username}, "username"),
    ):
        error = fails(platform.anonymous.auth.SignUp, sign_up(**changes))
        assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ACCOUNT_TAKEN")
        assert [v.field for v in error.violations] == [field]


def test_of_many_who_want_one_name_one_gets_it(platform: Platform) -> None:
    name = f"t{secrets.token_hex(6)}"

    def attempt(_: int) -> str:
        try:
            platform.anonymous.auth.SignUp(sign_up(username=name))
        except grpc.RpcError as e:
            return from_rpc_error(e).reason
        return "made"

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(attempt, range(8)))
    assert sorted(answers) == ["ACCOUNT_TAKEN"] * 7 + ["made"]


def test_a_wrong_password_is_answered_as_an_unknown_email(platform: Platform, person: Account) -> None:
    wrong, unknown = (
        fails(platform.anonymous.auth.SignIn, auth_pb2.SignInRequest(email=email, password="not the password"))
        for email in (person.email, f"x{person.email}")
    )
    assert wrong.code is unknown.code is grpc.StatusCode.UNAUTHENTICATED
    assert (wrong.reason, wrong.message) == (unknown.reason, unknown.message)


def test_a_session_of_a_new_sign_in_works(platform: Platform, person: Account) -> None:
    signed = platform.anonymous.auth.SignIn(auth_pb2.SignInRequest(email=person.email.upper(), password=PASSWORD))
    assert signed.profile.user_id == person.profile.user_id
    session = Account(platform, signed.session.access_token)
    assert session.auth.GetProfile(auth_pb2.GetProfileRequest()).profile.username == person.profile.username


def test_repeated_failures_lock_the_account(platform: Platform, person: Account) -> None:
    right = auth_pb2.SignInRequest(email=person.email, password=PASSWORD)
    wrong = auth_pb2.SignInRequest(email=person.email, password="not the password")
    reasons = [fails(platform.anonymous.auth.SignIn, wrong).reason for _ in range(5)]
    assert reasons == ["SIGN_IN_FAILED"] * 5
    error = fails(platform.anonymous.auth.SignIn, right)
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "ACCOUNT_LOCKED")
    assert error.retry_after is not None
    assert 0 < error.retry_after <= 1


def test_attempts_made_at_once_are_told_no_more_than_those_made_in_turn(platform: Platform, person: Account) -> None:
    def attempt(_: int) -> str:
        request = auth_pb2.SignInRequest(email=person.email, password="not the password")
        return fails(platform.anonymous.auth.SignIn, request).reason

    began = time.monotonic()
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(attempt, range(12)))
    # The locks last 1, 2, 4, … seconds, and one attempt goes through after each.
    more = int(math.log2(time.monotonic() - began + 1))
    assert 5 <= answers.count("SIGN_IN_FAILED") <= 5 + more, answers


def test_success_forgets_failures(platform: Platform, person: Account) -> None:
    right = auth_pb2.SignInRequest(email=person.email, password=PASSWORD)
    wrong = auth_pb2.SignInRequest(email=person.email, password="not the password")
    for _ in range(2):
        for _ in range(4):
            assert fails(platform.anonymous.auth.SignIn, wrong).reason == "SIGN_IN_FAILED"
        platform.anonymous.auth.SignIn(right)


def refresh(platform: Platform, token: str) -> auth_pb2.Session:
    request = auth_pb2.RefreshSessionRequest(refresh_token=token)
    return platform.anonymous.auth.RefreshSession(request).session


def test_a_refresh_token_works_once_and_its_reuse_ends_the_family(platform: Platform) -> None:
    first = platform.anonymous.auth.SignUp(sign_up()).session
    second = refresh(platform, first.refresh_token)
    assert second.refresh_token != first.refresh_token
    Account(platform, second.access_token).auth.GetProfile(auth_pb2.GetProfileRequest())
    for token in (first.refresh_token, second.refresh_token, "mr_invented"):
        error = fails(platform.anonymous.auth.RefreshSession, auth_pb2.RefreshSessionRequest(refresh_token=token))
        assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID")


def test_another_sign_in_outlives_a_family(platform: Platform) -> None:
    request = sign_up()
    first = platform.anonymous.auth.SignUp(request).session
    other = platform.anonymous.auth.SignIn(auth_pb2.SignInRequest(email=request.email, password=PASSWORD)).session
    platform.anonymous.auth.SignOut(auth_pb2.SignOutRequest(refresh_token=first.refresh_token))
    gone = auth_pb2.RefreshSessionRequest(refresh_token=first.refresh_token)
    assert fails(platform.anonymous.auth.RefreshSession, gone).reason == "CREDENTIAL_INVALID"
    refresh(platform, other.refresh_token)


def test_a_profile_changes_by_its_etag(person: Account) -> None:
    before = person.auth.GetProfile(auth_pb2.GetProfileRequest()).profile
    after = person.auth.UpdateProfile(auth_pb2.UpdateProfileRequest(display_name="Ada ✓", etag=before.etag)).profile
    assert (after.display_name, after.user_id) == ("Ada ✓", before.user_id)
    assert after.etag != before.etag
    for etag in (before.etag, "²", "x", "-1", "0", "9" * 60):
        error = fails(person.auth.UpdateProfile, auth_pb2.UpdateProfileRequest(display_name="B", etag=etag))
        assert (error.code, error.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH"), etag
    person.auth.UpdateProfile(auth_pb2.UpdateProfileRequest(display_name="C"))
    assert person.auth.GetProfile(auth_pb2.GetProfileRequest()).profile.display_name == "C"


def test_bytes_that_are_no_request_are_an_invalid_argument(platform: Platform) -> None:
    person = platform.publisher()
    for path in (
        "/mercat.auth.v1.AuthService/SignIn", "/mercat.storage.v1.StorageService/GetUpload",
        "/mercat.inference.v1.InferenceService/Predict", "/inference.GRPCInferenceService/ModelInfer",
    ):  # fmt: skip
        call = platform.channel.unary_unary(path)
        error = fails(call, b"\xff\xff\xff", metadata=person.metadata, timeout=10)
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED")
        assert "Error" not in error.message
    stream = platform.channel.stream_unary("/mercat.storage.v1.StorageService/WriteUpload")
    error = fails(stream, iter([b"\xff\xff\xff"]), metadata=person.metadata, timeout=10)
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED")


def test_page_tokens_nobody_made_are_refused(person: Account) -> None:
    texts = ("[1]", '["a","b"]', "{}", '["\\u0000"]', '["\\ud800"]', "no json", "[" * 300)
    tokens = ["%%%", "é", *(base64.urlsafe_b64encode(t.encode()).decode().rstrip("=") for t in texts)]
    for token in tokens:
        error = fails(person.auth.ListApiKeys, auth_pb2.ListApiKeysRequest(page_token=token))
        assert [v.field for v in error.violations] == ["page_token"], token


@pytest.fixture
def rows(platform: Platform) -> Callable[[str], Awaitable[list[asyncpg.Record]]]:
    """Reads the audit log as its operator would: with SQL."""
    url = psutil.Process(platform.pids()["control"]).environ()["MERCAT_POSTGRES_URL"]

    async def read(user_id: str) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(url)
        try:
            query = "SELECT * FROM auth.audit_logs WHERE user_id = $1 ORDER BY created_at"
            return list(await connection.fetch(query, user_id))
        finally:
            await connection.close()

    return read


async def test_sensitive_acts_are_in_the_audit_log(
    platform: Platform, rows: Callable[[str], Awaitable[list[asyncpg.Record]]]
) -> None:
    person = platform.sign_up()
    person.auth.UpdateProfile(auth_pb2.UpdateProfileRequest(display_name="Audited"))
    found: list[asyncpg.Record] = []
    for _ in range(50):
        found = await rows(person.profile.user_id)
        if len(found) >= 3:
            break
        await asyncio.sleep(0.1)
    by_action = {r["action"].rpartition("/")[2]: r for r in found}
    assert {"SignUp", "CreateApiKey", "UpdateProfile"} <= by_action.keys()
    made = by_action["CreateApiKey"]
    assert made["resource_type"] == "api_key"
    assert made["resource_id"].startswith("key_")
    assert made["ip_address"] is not None
    assert "grpc" in made["user_agent"]
    assert made["request_id"].startswith("req_")
    assert {r["chain"] for r in found} == {person.profile.org_id}
    assert sorted(r["sequence"] for r in found) == [1, 2, 3]
    asked = json.loads(by_action["SignUp"]["metadata"])["request"]
    assert (asked["email"], asked["password"]) == (person.email, "[secret]")
    renamed = json.loads(by_action["UpdateProfile"]["metadata"])
    assert (renamed["request"]["display_name"], renamed["before"]) == ("Audited", {})

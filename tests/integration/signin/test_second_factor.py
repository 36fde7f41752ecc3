"""The second factor: turning it on, signing in with it, each code once, and what is asked for again."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import asyncpg
import grpc
import jwt
import psutil
from mercat.auth.v1 import auth_pb2, mfa_pb2, sessions_pb2
from mercat.billing.v1 import billing_pb2

from services.common.errors import from_rpc_error
from tests.expect import fails
from tests.integration.signin.people import (
    Mailbox,
    Member,
    code_of,
    confirm,
    ends,
    enrolled,
    member,
    move,
)
from tests.platform import PASSWORD, Account, Platform

KEY = auth_pb2.CreateApiKeyRequest(name="k")


def claims(person: Member) -> dict[str, object]:
    return dict(jwt.decode(person.session.access_token, options={"verify_signature": False}))


def state(person: Member) -> mfa_pb2.SecondFactor:
    return person.second.GetSecondFactor(mfa_pb2.GetSecondFactorRequest()).second_factor


def test_it_is_on_when_a_first_code_was_seen(platform: Platform, mailbox: Mailbox) -> None:
    person = member(platform)
    assert not state(person).enabled
    made = person.second.EnrollTotp(mfa_pb2.EnrollTotpRequest())
    assert made.secret in made.uri
    assert not state(person).enabled
    person.again()  # as before
    wrong = mfa_pb2.ConfirmTotpRequest(code="000000")
    assert [v.field for v in fails(person.second.ConfirmTotp, wrong).violations] == ["code"]
    answer = person.second.ConfirmTotp(mfa_pb2.ConfirmTotpRequest(code=code_of(platform, made.secret)))
    assert len(set(answer.recovery_codes)) == 10
    person.session.access_token = answer.session.access_token
    found = state(person)
    assert (found.enabled, found.recovery_codes_left) == (True, 10)
    assert claims(person)["acr"] == "aal2"
    assert fails(person.second.EnrollTotp, mfa_pb2.EnrollTotpRequest()).reason == "SECOND_FACTOR_EXISTS"
    assert fails(person.second.ConfirmTotp, wrong).reason == "NOT_ENROLLED"
    mailbox.to(person.email, subject="second factor from now on")


def test_signing_in_takes_it(platform: Platform) -> None:
    person, secret, _ = enrolled(platform)
    request = auth_pb2.SignInRequest(email=person.email, password=PASSWORD)
    assert fails(platform.anonymous.auth.SignIn, request).reason == "SECOND_FACTOR_REQUIRED"
    request.code = "000000"
    assert fails(platform.anonymous.auth.SignIn, request).reason == "SECOND_FACTOR_WRONG"
    request.code, request.password = code_of(platform, secret), "not the password"
    assert fails(platform.anonymous.auth.SignIn, request).reason == "SIGN_IN_FAILED"
    there = person.again(code=code_of(platform, secret))  # which the wrong password did not use up
    assert claims(there)["acr"] == "aal2"
    request.password = PASSWORD
    assert fails(platform.anonymous.auth.SignIn, request).reason == "SECOND_FACTOR_WRONG"
    refreshed = platform.anonymous.auth.RefreshSession(
        auth_pb2.RefreshSessionRequest(refresh_token=there.session.refresh_token)
    ).session
    assert claims(Member(platform, "", refreshed, there.profile))["acr"] == "aal2"


def test_wrong_codes_lock_as_wrong_passwords_do(platform: Platform) -> None:
    person, _, _ = enrolled(platform)
    request = auth_pb2.SignInRequest(email=person.email, password=PASSWORD, code="000000")
    reasons = [fails(platform.anonymous.auth.SignIn, request).reason for _ in range(6)]
    assert reasons == ["SECOND_FACTOR_WRONG"] * 5 + ["ACCOUNT_LOCKED"]


def test_of_a_hundred_that_bring_one_code_one_is_let_in(platform: Platform) -> None:
    person, secret, recovery = enrolled(platform)

    def attempts(code: str, times: int) -> Counter[str]:
        request = auth_pb2.SignInRequest(email=person.email, password=PASSWORD, code=code)

        def attempt(_: int) -> str:
            try:
                platform.anonymous.auth.SignIn(request, timeout=240)
            except grpc.RpcError as e:
                return from_rpc_error(e).reason
            return "in"

        with ThreadPoolExecutor(50) as pool:
            return Counter(pool.map(attempt, range(times)))

    for code, times in ((code_of(platform, secret), 100), (recovery[0], 20)):
        found = attempts(code, times)
        assert found["in"] == 1, found
        assert found.keys() <= {"in", "SECOND_FACTOR_WRONG", "ACCOUNT_LOCKED"}, found
        move(platform, hours=1)


def test_a_recovery_code_works_once_and_is_told(platform: Platform, mailbox: Mailbox) -> None:
    person, _, recovery = enrolled(platform)
    there = person.again(code=recovery[3].upper())
    assert state(there).recovery_codes_left == 9
    request = auth_pb2.SignInRequest(email=person.email, password=PASSWORD, code=recovery[3])
    assert fails(platform.anonymous.auth.SignIn, request).reason == "SECOND_FACTOR_WRONG"
    (mail,) = mailbox.to(person.email, subject="recovery code")
    assert "9 are left" in mail.get_body(("plain",)).get_content()  # type: ignore[union-attr]
    made = there.second.RegenerateRecoveryCodes(mfa_pb2.RegenerateRecoveryCodesRequest()).recovery_codes
    assert not set(made) & set(recovery)
    request.code = recovery[4]
    assert fails(platform.anonymous.auth.SignIn, request).reason == "SECOND_FACTOR_WRONG"
    person.again(code=made[4])


def test_turning_it_off_takes_it(platform: Platform, mailbox: Mailbox) -> None:
    person, secret, _ = enrolled(platform)
    key = Account(platform, person.auth.CreateApiKey(KEY).secret)
    robot = Member(platform, "", auth_pb2.Session(access_token=key.api_key), person.profile)
    for call, request in (
        (robot.second.DisableTotp, mfa_pb2.DisableTotpRequest()),
        (robot.second.EnrollTotp, mfa_pb2.EnrollTotpRequest()),
        (robot.sessions.Reauthenticate, sessions_pb2.ReauthenticateRequest(code=code_of(platform, secret))),
    ):  # fmt: skip
        assert fails(call, request).reason == "SESSION_REQUIRED"
    move(platform, minutes=14)
    person = Member(platform, person.email, _refreshed(person), person.profile)
    move(platform, minutes=2)
    assert fails(person.second.DisableTotp, mfa_pb2.DisableTotpRequest()).reason == "STEP_UP_REQUIRED"
    person = confirm(person, code=code_of(platform, secret))
    person.second.DisableTotp(mfa_pb2.DisableTotpRequest())
    mailbox.to(person.email, subject="turned off")
    assert not state(person).enabled
    assert fails(person.second.DisableTotp, mfa_pb2.DisableTotpRequest()).reason == "SECOND_FACTOR_MISSING"
    person.again()


def _refreshed(person: Member) -> auth_pb2.Session:
    request = auth_pb2.RefreshSessionRequest(refresh_token=person.session.refresh_token)
    return person.platform.anonymous.auth.RefreshSession(request).session  # type: ignore[no-any-return]


def test_money_and_keys_are_asked_for_again(platform: Platform) -> None:
    person, secret, _ = enrolled(platform)
    person.auth.CreateApiKey(KEY)
    person.billing.TopUpWallet(billing_pb2.TopUpWalletRequest(amount_nanos=1))
    move(platform, minutes=16)
    old = person.session.refresh_token
    person = Member(platform, person.email, _refreshed(person), person.profile)
    assert person.session.refresh_token != old
    for call, request in (
        (person.auth.CreateApiKey, KEY), (person.billing.TopUpWallet, billing_pb2.TopUpWalletRequest(amount_nanos=1)),
    ):  # fmt: skip
        error = fails(call, request)
        assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "STEP_UP_REQUIRED")
        assert error.metadata | {"with": "code", "acr_values": "aal2", "max_age": "900"} == error.metadata
    person.auth.ListApiKeys(auth_pb2.ListApiKeysRequest())  # what changes nothing is not
    for proof, reason in (
        ({"code": "000000"}, "SECOND_FACTOR_WRONG"), ({"password": PASSWORD}, "INVALID_FIELDS"), ({}, "INVALID_FIELDS"),
    ):  # fmt: skip
        request = sessions_pb2.ReauthenticateRequest(**proof)
        assert fails(person.sessions.Reauthenticate, request).reason == reason
    proved = confirm(person, code=code_of(platform, secret))
    proved.auth.CreateApiKey(KEY)
    # The token from before does not gain from it: somebody else may have it.
    assert fails(person.auth.CreateApiKey, KEY).reason == "STEP_UP_REQUIRED"


def test_a_session_from_before_the_second_factor_is_asked_for_it(platform: Platform) -> None:
    person = member(platform)
    other = person.again()
    other.auth.CreateApiKey(KEY)
    secret = person.second.EnrollTotp(mfa_pb2.EnrollTotpRequest()).secret
    person.second.ConfirmTotp(mfa_pb2.ConfirmTotpRequest(code=code_of(platform, secret, steps=-1)))
    assert ends(other.auth.CreateApiKey, KEY) == "STEP_UP_REQUIRED"
    confirm(other, code=code_of(platform, secret)).auth.CreateApiKey(KEY)


def test_without_a_second_factor_nothing_is_asked_again_but_for_turning_one_on(platform: Platform) -> None:
    person = member(platform)
    move(platform, minutes=16)
    person = Member(platform, person.email, _refreshed(person), person.profile)
    person.auth.CreateApiKey(KEY)
    error = fails(person.second.EnrollTotp, mfa_pb2.EnrollTotpRequest())
    assert (error.reason, error.metadata["with"]) == ("STEP_UP_REQUIRED", "password")
    wrong = sessions_pb2.ReauthenticateRequest(password="not the password")
    assert fails(person.sessions.Reauthenticate, wrong).reason == "PASSWORD_WRONG"
    confirm(person, password=PASSWORD).second.EnrollTotp(mfa_pb2.EnrollTotpRequest())


async def test_secrets_and_recovery_codes_lie_nowhere_in_clear(platform: Platform) -> None:
    person, secret, recovery = enrolled(platform)
    connection = await asyncpg.connect(psutil.Process(platform.pids()["control"]).environ()["MERCAT_POSTGRES_URL"])
    try:
        query = "SELECT row_to_json(t)::text FROM {} t WHERE user_id = $1"
        rows = [
            text for table in ("auth.totp_factors", "auth.recovery_codes")
            for (text,) in await connection.fetch(query.format(table), person.profile.user_id)
        ]  # fmt: skip
    finally:
        await connection.close()
    assert len(rows) == 11
    for text in (secret, secret.encode().hex(), *recovery, *(code.encode().hex() for code in recovery)):
        assert all(text not in row for row in rows)
        assert text not in platform.log()

"""Verification, new passwords, and that mail comes whatever happens to its server or its sender."""

import contextlib
import secrets
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import asyncpg
import grpc
import psutil
import pytest
from mercat.auth.v1 import auth_pb2, signin_pb2
from mercat.billing.v1 import payments_pb2

from services.common import clock
from tests import graphs
from tests.expect import fails
from tests.integration.signin.people import Mailbox, Member, ends, member, move
from tests.platform import PASSWORD, Platform

NEW = "an entirely other passphrase 42"


def verify(platform: Platform, code: str) -> None:
    people(platform).passwords.VerifyEmail(signin_pb2.VerifyEmailRequest(code=code))


def people(platform: Platform) -> Member:
    """Nobody in particular: who has no credential."""
    return Member(platform, "", auth_pb2.Session(), auth_pb2.Profile())


def forgot(platform: Platform, email: str) -> None:
    people(platform).passwords.RequestPasswordReset(signin_pb2.RequestPasswordResetRequest(email=email))


def reset(platform: Platform, code: str, password: str = NEW) -> None:
    people(platform).passwords.ResetPassword(signin_pb2.ResetPasswordRequest(code=code, password=password))


def is_verified(person: Member) -> bool:
    return bool(person.auth.GetProfile(auth_pb2.GetProfileRequest()).profile.is_verified)


def test_a_code_by_mail_verifies_the_address_once(platform: Platform, mailbox: Mailbox) -> None:
    person = member(platform)
    code = mailbox.code(person.email)
    assert not is_verified(person)
    verify(platform, code.upper().replace("-", " "))
    assert is_verified(person)
    error = fails(people(platform).passwords.VerifyEmail, signin_pb2.VerifyEmailRequest(code=code))
    assert [v.field for v in error.violations] == ["code"]
    assert "mercat verify --resend" in error.message
    assert fails(person.passwords.SendVerification, signin_pb2.SendVerificationRequest()).reason == "EMAIL_VERIFIED"


def test_an_unverified_account_may_all_but_publish_and_pay(platform: Platform, mailbox: Mailbox) -> None:
    person = platform.publisher()
    card = payments_pb2.AttachPaymentMethodRequest(payment_method="pm_card_visa")
    error = fails(person.payments.AttachPaymentMethod, card)
    assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "EMAIL_UNVERIFIED")
    with pytest.raises(grpc.RpcError) as caught:
        platform.publish(person, graphs.addition())
    assert "verify your email" in str(caught.value.details())
    verify(platform, mailbox.code(person.email))
    platform.publish(person, graphs.addition())  # at once, although what is known of the key is kept for seconds
    person.payments.AttachPaymentMethod(card)


def test_a_code_ends_after_a_day_and_three_are_sent_in_an_hour(platform: Platform, mailbox: Mailbox) -> None:
    person = member(platform)
    first = mailbox.code(person.email)
    request = signin_pb2.SendVerificationRequest()
    person.passwords.SendVerification(request)
    person.passwords.SendVerification(request)
    second = mailbox.code(person.email, 3)
    assert first != second
    error = fails(person.passwords.SendVerification, request)
    assert (error.reason, error.code) == ("MAIL_LIMITED", grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert error.retry_after is not None
    assert 3500 < error.retry_after <= 3600
    move(platform, hours=1, seconds=1)
    person = person.again()
    person.passwords.SendVerification(request)
    third = mailbox.code(person.email, 4)
    move(platform, hours=23)
    for code in (first, second):
        error = fails(people(platform).passwords.VerifyEmail, signin_pb2.VerifyEmailRequest(code=code))
        assert [v.field for v in error.violations] == ["code"]
    verify(platform, third)


def test_a_new_password_by_mail_ends_every_session_and_the_lock(platform: Platform, mailbox: Mailbox) -> None:
    person = member(platform)
    other = person.again()
    for _ in range(5):
        wrong = auth_pb2.SignInRequest(email=person.email, password="not the password")
        assert fails(platform.anonymous.auth.SignIn, wrong).reason == "SIGN_IN_FAILED"
    right = auth_pb2.SignInRequest(email=person.email, password=PASSWORD)
    assert fails(platform.anonymous.auth.SignIn, right).reason == "ACCOUNT_LOCKED"
    forgot(platform, person.email.upper())
    code = mailbox.code(person.email, subject="new password")
    request = signin_pb2.ResetPasswordRequest(code=code, password="password1234")
    assert [v.field for v in fails(people(platform).passwords.ResetPassword, request).violations] == ["password"]
    reset(platform, code)
    me = auth_pb2.GetProfileRequest()
    for session in (person, other):
        assert ends(session.auth.GetProfile, me) == "CREDENTIAL_INVALID"
        token = auth_pb2.RefreshSessionRequest(refresh_token=session.session.refresh_token)
        assert fails(platform.anonymous.auth.RefreshSession, token).reason == "CREDENTIAL_INVALID"
    assert fails(platform.anonymous.auth.SignIn, right).reason == "SIGN_IN_FAILED"
    assert is_verified(person.again(NEW))
    assert "set anew" in mailbox.to(person.email, subject="set anew")[0]["Subject"]


def test_a_code_sets_one_password_within_half_an_hour(platform: Platform, mailbox: Mailbox) -> None:
    person = member(platform)
    forgot(platform, person.email)
    late = mailbox.code(person.email, subject="new password")
    move(platform, minutes=30, seconds=1)
    late_request = signin_pb2.ResetPasswordRequest(code=late, password=NEW)
    assert [v.field for v in fails(people(platform).passwords.ResetPassword, late_request).violations] == ["code"]
    forgot(platform, person.email)
    code = mailbox.code(person.email, 2, subject="new password")

    def attempt(number: int) -> str:
        try:
            reset(platform, code, f"{NEW} {number}")
        except grpc.RpcError:
            return ""
        return f"{NEW} {number}"

    with ThreadPoolExecutor(8) as pool:
        done = [password for password in pool.map(attempt, range(8)) if password]
    assert len(done) == 1
    person.again(done[0])


def test_asking_does_not_say_whether_there_is_an_account(platform: Platform, mailbox: Mailbox) -> None:
    person = member(platform)
    mailbox.to(person.email)
    known, unknown = [], []
    strangers = [f"{secrets.token_hex(6)}@example.com" for _ in range(15)]
    for stranger in strangers:
        for email, took in ((person.email, known), (stranger, unknown)):
            began = time.perf_counter()
            forgot(platform, email)
            took.append(time.perf_counter() - began)
    mailbox.to(person.email, 3, subject="new password")
    time.sleep(1)
    assert len(mailbox.to(person.email, 3, subject="new password")) == 3  # of fifteen
    assert not {m["To"] for m in mailbox.messages} & set(strangers)
    assert abs(statistics.median(known) - statistics.median(unknown)) < 0.03  # seconds


def test_a_password_is_changed_by_the_one_before(platform: Platform, mailbox: Mailbox) -> None:
    person = member(platform)
    other = person.again()
    request = signin_pb2.ChangePasswordRequest(current_password="not the password", password=NEW)
    assert fails(person.passwords.ChangePassword, request).reason == "PASSWORD_WRONG"
    request = signin_pb2.ChangePasswordRequest(current_password=PASSWORD, password=person.profile.username * 2)
    error = fails(person.passwords.ChangePassword, request)
    assert [v.field for v in error.violations] == ["password"]
    person.passwords.ChangePassword(signin_pb2.ChangePasswordRequest(current_password=PASSWORD, password=NEW))
    person.auth.GetProfile(auth_pb2.GetProfileRequest())
    assert ends(other.auth.GetProfile, auth_pb2.GetProfileRequest()) == "CREDENTIAL_INVALID"
    person.again(NEW)
    mailbox.to(person.email, subject="was changed")


def test_mail_waits_for_a_server_that_is_busy_and_gives_up_where_it_is_refused(
    platform: Platform, mailbox: Mailbox
) -> None:
    busy, refused = (f"t{secrets.token_hex(6)}" for _ in range(2))
    mailbox.answers[f"{busy}@example.com"] = ["451 later"] * 2
    mailbox.answers[f"{refused}@example.com"] = ["550 never"]
    for name in (busy, refused):
        platform.sign_up(name=name)
    mails = mailbox.to(f"{busy}@example.com", 3)
    assert len({m["Message-ID"] for m in mails}) == 1
    time.sleep(5)
    assert len(mailbox.to(f"{busy}@example.com", 3)) == 3
    assert len(mailbox.to(f"{refused}@example.com")) == 1


async def test_addresses_and_codes_lie_nowhere_in_clear(platform: Platform, mailbox: Mailbox) -> None:
    name = f"t{secrets.token_hex(6)}"
    email = f"{name}@example.com"
    mailbox.answers[email] = ["451 later"]
    platform.sign_up(name=name)
    code = mailbox.code(email)
    connection = await asyncpg.connect(psutil.Process(platform.pids()["control"]).environ()["MERCAT_POSTGRES_URL"])
    try:
        (mail,) = await connection.fetch("SELECT * FROM auth.mails WHERE attempts > 0 ORDER BY id DESC LIMIT 1")
        stored = await connection.fetch("SELECT code_hash, purpose FROM auth.mail_codes")
    finally:
        await connection.close()
    assert email.encode() not in mail["sealed"]
    assert code.encode() not in mail["sealed"]
    assert all(code.encode() not in row["code_hash"] for row in stored)
    assert code not in platform.log()
    assert email not in platform.log()


def test_a_sender_that_dies_sends_again_under_the_same_name(
    own_platform: Callable[..., Platform], mailbox: Mailbox
) -> None:
    running = own_platform(env=mailbox.settings | {"MERCAT_FAILPOINTS": "mail.sent=1"})
    died = running.pids()["control"]
    name = f"t{secrets.token_hex(6)}"
    email = f"{name}@example.com"
    with contextlib.suppress(grpc.RpcError):  # the process may be gone before it answers
        running.sign_up(name=name)
    running.until_ready("control", died)
    assert len(mailbox.to(email)) == 1
    clock.move(timedelta(minutes=3), running.home)
    first, second = mailbox.to(email, 2)
    assert first["Message-ID"] == second["Message-ID"]
    time.sleep(4)
    assert len(mailbox.to(email, 2)) == 2

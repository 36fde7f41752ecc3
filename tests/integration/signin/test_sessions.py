"""Sessions as their owner sees and ends them, and guessing."""

import ipaddress
import secrets
from collections.abc import Callable

import grpc
import pytest
from mercat.auth.v1 import auth_pb2, sessions_pb2

from tests.expect import fails
from tests.integration.signin.people import Member, ends, member, move
from tests.platform import Platform

ME = auth_pb2.GetProfileRequest()


def listed(person: Member) -> list[sessions_pb2.ActiveSession]:
    return list(person.sessions.ListSessions(sessions_pb2.ListSessionsRequest()).sessions)


def test_sessions_are_listed_with_where_and_when(platform: Platform) -> None:
    person = member(platform)
    other = person.again()
    newest, before, first = listed(person)  # the first is of signing up
    assert newest.session_id > before.session_id > first.session_id
    assert (newest.current, before.current, first.current) == (False, True, False)
    ipaddress.ip_address(before.ip_address)
    assert "grpc" in before.user_agent
    assert before.last_used_at.seconds >= before.created_at.seconds > 0
    page = person.sessions.ListSessions(sessions_pb2.ListSessionsRequest(page_size=2))
    rest = sessions_pb2.ListSessionsRequest(page_size=2, page_token=page.next_page_token)
    assert [s.session_id for s in person.sessions.ListSessions(rest).sessions] == [first.session_id]
    move(platform, seconds=30)
    refreshed = platform.anonymous.auth.RefreshSession(
        auth_pb2.RefreshSessionRequest(refresh_token=other.session.refresh_token)
    )
    assert refreshed.session.access_token
    assert listed(person)[0].last_used_at.seconds >= newest.last_used_at.seconds + 30


def test_a_revoked_session_is_over_at_once(platform: Platform) -> None:
    person = member(platform)
    other = person.again()
    other.auth.GetProfile(ME)
    (theirs,) = [s for s in listed(other) if s.current]
    person.sessions.RevokeSession(sessions_pb2.RevokeSessionRequest(session_id=theirs.session_id))
    assert ends(other.auth.GetProfile, ME) == "CREDENTIAL_INVALID"
    token = auth_pb2.RefreshSessionRequest(refresh_token=other.session.refresh_token)
    assert fails(platform.anonymous.auth.RefreshSession, token).reason == "CREDENTIAL_INVALID"
    again = sessions_pb2.RevokeSessionRequest(session_id=theirs.session_id)
    assert fails(person.sessions.RevokeSession, again).reason == "SESSION_NOT_FOUND"
    person.auth.GetProfile(ME)


def test_nobody_ends_another_persons_session(platform: Platform) -> None:
    person, stranger = member(platform), member(platform)
    (own,) = [s for s in listed(person) if s.current]
    request = sessions_pb2.RevokeSessionRequest(session_id=own.session_id)
    assert fails(stranger.sessions.RevokeSession, request).reason == "SESSION_NOT_FOUND"
    assert own.session_id not in {s.session_id for s in listed(stranger)}
    person.auth.GetProfile(ME)


def test_all_others_are_ended(platform: Platform) -> None:
    person = member(platform)
    others = [person.again() for _ in range(3)]
    answer = person.sessions.RevokeOtherSessions(sessions_pb2.RevokeOtherSessionsRequest())
    assert answer.revoked_count == 4  # and the one of signing up
    assert [s.current for s in listed(person)] == [True]
    for other in others:
        assert ends(other.auth.GetProfile, ME) == "CREDENTIAL_INVALID"


def test_a_refresh_token_that_is_used_twice_ends_its_access_tokens_too(platform: Platform) -> None:
    person = member(platform)
    request = auth_pb2.RefreshSessionRequest(refresh_token=person.session.refresh_token)
    fresh = platform.anonymous.auth.RefreshSession(request).session
    thief = Member(platform, person.email, fresh, person.profile)
    thief.auth.GetProfile(ME)
    assert fails(platform.anonymous.auth.RefreshSession, request).reason == "CREDENTIAL_INVALID"
    for session in (person, thief):
        assert ends(session.auth.GetProfile, ME) == "CREDENTIAL_INVALID"
    person.again().auth.GetProfile(ME)


def test_a_session_runs_out_thirty_days_after_its_last_use(platform: Platform) -> None:
    person = member(platform)
    session = person.session
    for _ in range(2):
        move(platform, days=29)
        request = auth_pb2.RefreshSessionRequest(refresh_token=session.refresh_token)
        session = platform.anonymous.auth.RefreshSession(request).session
    move(platform, days=30, seconds=1)
    request = auth_pb2.RefreshSessionRequest(refresh_token=session.refresh_token)
    assert fails(platform.anonymous.auth.RefreshSession, request).reason == "CREDENTIAL_INVALID"
    assert len(listed(person.again())) == 1


def test_an_address_without_an_account_is_locked_as_one_with_an_account(platform: Platform) -> None:
    known, unknown = member(platform).email, f"{secrets.token_hex(6)}@example.com"
    answers = {}
    for email in (known, unknown):
        request = auth_pb2.SignInRequest(email=email, password="not the password")
        errors = [fails(platform.anonymous.auth.SignIn, request) for _ in range(6)]
        answers[email] = [(e.reason, e.message) for e in errors]
    assert answers[known] == answers[unknown]
    assert [reason for reason, _ in answers[known]] == ["SIGN_IN_FAILED"] * 5 + ["ACCOUNT_LOCKED"]


def test_each_lock_is_twice_as_long_as_the_one_before(platform: Platform) -> None:
    person = member(platform)
    wrong = auth_pb2.SignInRequest(email=person.email, password="not the password")
    for _ in range(4):
        fails(platform.anonymous.auth.SignIn, wrong)
    for seconds in (1, 2, 4, 8):
        assert fails(platform.anonymous.auth.SignIn, wrong).reason == "SIGN_IN_FAILED"
        error = fails(platform.anonymous.auth.SignIn, wrong)
        assert error.reason == "ACCOUNT_LOCKED"
        assert error.retry_after is not None
        assert seconds - 1 < error.retry_after <= seconds
        move(platform, seconds=seconds)
    person.again()  # who knows the password gets in between two locks, and all is forgotten
    assert [fails(platform.anonymous.auth.SignIn, wrong).reason for _ in range(4)] == ["SIGN_IN_FAILED"] * 4


def test_an_address_on_the_network_that_guesses_must_wait(own_platform: Callable[..., Platform]) -> None:
    running = own_platform(env={"MERCAT_ADDRESS_FAILURES": "8"})
    person = running.sign_up()

    def attempt(email: str, password: str = "not the password") -> str:
        return fails(running.anonymous.auth.SignIn, auth_pb2.SignInRequest(email=email, password=password)).reason

    reasons = [attempt(f"{secrets.token_hex(6)}@example.com") for _ in range(9)]
    assert reasons == ["SIGN_IN_FAILED"] * 8 + ["ADDRESS_LOCKED"]
    with pytest.raises(grpc.RpcError, match="ADDRESS_LOCKED|from your address"):
        running.anonymous.auth.SignIn(auth_pb2.SignInRequest(email=person.email, password="whatever it is"))

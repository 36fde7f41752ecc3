"""Signing in with an account elsewhere: at a real OpenID provider, and at a GitHub."""

import base64
import hashlib
import secrets
from urllib.parse import parse_qs, urlsplit

import grpc
import httpx
import pytest
from mercat.auth.v1 import auth_pb2, identity_pb2, mfa_pb2, passkey_pb2, signin_pb2

from services.common.errors import from_rpc_error
from tests.expect import fails
from tests.integration.signin.elsewhere import Elsewhere
from tests.integration.signin.people import Mailbox, Member, code_of, enrolled, member, move
from tests.platform import Account, Platform

BACK = "http://127.0.0.1:9/callback"
ME = auth_pb2.GetProfileRequest()
LIST = identity_pb2.ListIdentitiesRequest()


class Program:
    """Begins, follows the browser to the provider and back, and has what it is sent."""

    def __init__(
        self, platform: Platform, provider: str = "acme", person: Member | None = None, *, domain: str = ""
    ) -> None:
        self.platform = platform
        self.verifier, self.state = secrets.token_urlsafe(48), secrets.token_urlsafe(8)
        digest = hashlib.sha256(self.verifier.encode()).digest()
        asks = {
            "provider": "" if domain else provider, "domain": domain, "redirect_uri": BACK, "state": self.state,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        }  # fmt: skip
        if person is None:
            begun = platform.anonymous.identities.BeginIdentitySignIn(identity_pb2.BeginIdentitySignInRequest(**asks))
        else:
            begun = person.identities.BeginIdentityLink(identity_pb2.BeginIdentityLinkRequest(**asks))
        self.url = begun.authorization_url
        self.code = ""

    def follow(self, location: str) -> "Program":
        """From the provider to the platform, and from there to the program."""
        assert location.startswith(f"{self.platform.rest}/oauth/callback?")
        answer = httpx.get(location)
        assert answer.status_code == 302, answer.text
        back = answer.headers["location"]
        assert back.startswith(BACK + "?")
        said = parse_qs(urlsplit(back).query)
        assert said["state"] == [self.state]
        self.code = said.get("code", [""])[0]
        return self

    def request(self, **more: str) -> identity_pb2.SignInWithIdentityRequest:
        return identity_pb2.SignInWithIdentityRequest(identity_code=self.code, code_verifier=self.verifier, **more)

    def sign_in(self, **more: str) -> identity_pb2.SignInWithIdentityResponse:
        return self.platform.anonymous.identities.SignInWithIdentity(self.request(**more))  # type: ignore[no-any-return]

    def refused(self, **more: str) -> str:
        return fails(self.platform.anonymous.identities.SignInWithIdentity, self.request(**more)).reason


def visit(platform: Platform, elsewhere: Elsewhere, subject: str, **claims: object) -> Program:
    """Somebody signs in at the provider, where they are `subject` with these claims."""
    elsewhere.put(subject, **claims)
    program = Program(platform)
    return program.follow(elsewhere.authorize(program.url, subject))


def name() -> str:
    return f"p{secrets.token_hex(5)}"


def test_a_newcomer_gets_an_account_and_comes_back_to_it(
    platform: Platform, elsewhere: Elsewhere, mailbox: Mailbox
) -> None:
    listed = platform.anonymous.identities.ListIdentityProviders(identity_pb2.ListIdentityProvidersRequest())
    assert [(p.provider, p.name) for p in listed.providers] == [
        ("acme", "Acme"), ("sloppy", "sloppy"), ("github", "GitHub")
    ]  # fmt: skip
    who = name()
    claims = {"email": f"{who}@example.com", "email_verified": True, "name": "Ada", "preferred_username": who}
    first = visit(platform, elsewhere, who, **claims)
    asked = parse_qs(urlsplit(first.url).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["response_type"] == ["code"]
    assert asked["nonce"][0] != asked["state"][0]
    made = first.sign_in()
    assert made.created
    assert (made.profile.username, made.profile.email, made.profile.display_name) == (who, claims["email"], "Ada")
    assert made.profile.is_verified  # the provider owns its people's addresses, as the operator says
    assert first.refused() == "INVALID_FIELDS"  # the code is used
    again = visit(platform, elsewhere, who, **claims).sign_in()
    assert not again.created
    assert again.profile.user_id == made.profile.user_id
    # The address there may change; who it is does not.
    moved = visit(platform, elsewhere, who, **claims | {"email": f"{who}@other.example"}).sign_in()
    assert moved.profile.user_id == made.profile.user_id
    person = Member(platform, claims["email"], again.session, again.profile)
    identity = person.identities.ListIdentities(LIST).identities[0]
    assert (identity.provider, identity.email) == ("acme", f"{who}@other.example")
    # There is no password that anybody could guess, or leave empty.
    for password in ("", "x" * 10):
        request = auth_pb2.SignInRequest(email=claims["email"], password=password)
        assert fails(platform.anonymous.auth.SignIn, request).reason in ("SIGN_IN_FAILED", "INVALID_FIELDS")


def test_the_nicest_free_name_is_taken(platform: Platform, elsewhere: Elsewhere) -> None:
    taken = member(platform).profile.username
    made = visit(platform, elsewhere, name(), email=f"{name()}@example.com", preferred_username=taken.upper()).sign_in()
    assert made.profile.username.startswith(f"{taken}-")
    chosen = name()
    program = visit(platform, elsewhere, name(), email=f"{name()}@example.com")
    assert program.refused(username=taken) == "ACCOUNT_TAKEN"
    assert program.refused(username="admin") == "INVALID_FIELDS"
    assert program.sign_in(username=chosen).profile.username == chosen


def test_an_address_that_nobody_verified_is_verified_by_mail(
    platform: Platform, elsewhere: Elsewhere, mailbox: Mailbox
) -> None:
    email = f"{name()}@example.com"
    made = visit(platform, elsewhere, name(), email=email, email_verified=False).sign_in()
    assert made.created
    assert not made.profile.is_verified
    request = signin_pb2.VerifyEmailRequest(code=mailbox.code(email))
    Member(platform, email, made.session, made.profile).passwords.VerifyEmail(request)


def verified(platform: Platform, mailbox: Mailbox) -> Member:
    person = member(platform)
    person.passwords.VerifyEmail(signin_pb2.VerifyEmailRequest(code=mailbox.code(person.email)))
    return person


def test_an_account_is_linked_only_with_who_proves_to_own_its_address(
    platform: Platform, elsewhere: Elsewhere, mailbox: Mailbox
) -> None:
    # The provider does not say that it verified the address.
    person = verified(platform, mailbox)
    assert visit(platform, elsewhere, name(), email=person.email).refused() == "IDENTITY_UNLINKED"
    # It does, but nobody verified the account's: somebody may have made it in wait for its owner.
    waiting = member(platform)
    claims = {"email": waiting.email, "email_verified": True}
    assert visit(platform, elsewhere, name(), **claims).refused() == "IDENTITY_UNLINKED"
    # The provider calls everything verified, and the operator does not trust it.
    subject = name()
    elsewhere.put(subject, email=person.email, email_verified=True)
    sloppy = Program(platform, "sloppy")
    assert sloppy.follow(elsewhere.authorize(sloppy.url, subject)).refused() == "IDENTITY_UNLINKED"
    # A provider that tells no address at all.
    assert visit(platform, elsewhere, name()).refused() == "IDENTITY_WITHOUT_EMAIL"
    # Both verified, and trusted: it is theirs, and they are told.
    linked = visit(platform, elsewhere, name(), email=person.email.upper(), email_verified=True).sign_in()
    assert linked.profile.user_id == person.profile.user_id
    assert not linked.created
    mailbox.to(person.email, 1, "Acme")


def test_a_second_factor_is_asked_for_all_the_same(platform: Platform, elsewhere: Elsewhere, mailbox: Mailbox) -> None:
    person, secret, _ = enrolled(platform)
    person.passwords.VerifyEmail(signin_pb2.VerifyEmailRequest(code=mailbox.code(person.email)))
    subject = name()
    program = visit(platform, elsewhere, subject, email=person.email, email_verified=True)
    assert program.refused() == "SECOND_FACTOR_REQUIRED"
    assert program.refused(code="000000") == "SECOND_FACTOR_WRONG"
    signed = program.sign_in(code=code_of(platform, secret))
    Account(platform, signed.session.access_token).auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="k"))
    # Guessing it counts, whatever the first factor was.
    other = visit(platform, elsewhere, subject, email=person.email, email_verified=True)
    reasons = [other.refused(code="000000") for _ in range(6)]
    assert reasons[-1] == "ACCOUNT_LOCKED"


def test_whoever_is_signed_in_links_and_unlinks(platform: Platform, elsewhere: Elsewhere, mailbox: Mailbox) -> None:
    person, subject = member(platform), name()
    elsewhere.put(subject, email=f"{subject}@elsewhere.example")
    program = Program(platform, person=person)
    program.follow(elsewhere.authorize(program.url, subject))
    # The code signs nobody in, and links nobody else.
    assert program.refused() == "INVALID_FIELDS"
    request = identity_pb2.LinkIdentityRequest(identity_code=program.code, code_verifier=program.verifier)
    assert fails(member(platform).identities.LinkIdentity, request).reason == "INVALID_FIELDS"
    other = identity_pb2.LinkIdentityRequest(identity_code=program.code, code_verifier="x" * 43)
    assert fails(person.identities.LinkIdentity, other).violations[0].field == "code_verifier"
    linked = person.identities.LinkIdentity(request).identity
    assert linked.email == f"{subject}@elsewhere.example"
    assert visit(platform, elsewhere, subject).sign_in().profile.user_id == person.profile.user_id
    # It is one account's.
    thief = member(platform)
    second = Program(platform, person=thief)
    second.follow(elsewhere.authorize(second.url, subject))
    again = identity_pb2.LinkIdentityRequest(identity_code=second.code, code_verifier=second.verifier)
    assert fails(thief.identities.LinkIdentity, again).reason == "IDENTITY_TAKEN"
    unlink = identity_pb2.UnlinkIdentityRequest(identity_id=linked.identity_id)
    assert fails(thief.identities.UnlinkIdentity, unlink).reason == "IDENTITY_NOT_FOUND"
    person.identities.UnlinkIdentity(unlink)
    assert not person.identities.ListIdentities(LIST).identities
    mailbox.to(person.email, 2, "Acme")


def test_linking_takes_a_recent_proof(platform: Platform) -> None:
    person = member(platform)
    key = Account(platform, person.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="k")).secret)
    begin = identity_pb2.BeginIdentityLinkRequest(provider="acme", redirect_uri=BACK, code_challenge="x" * 43)
    assert fails(key.identities.BeginIdentityLink, begin).reason == "SESSION_REQUIRED"
    move(platform, minutes=16)
    refresh = auth_pb2.RefreshSessionRequest(refresh_token=person.session.refresh_token)
    stale = Account(platform, platform.anonymous.auth.RefreshSession(refresh).session.access_token)
    assert fails(stale.identities.BeginIdentityLink, begin).reason == "STEP_UP_REQUIRED"


def test_the_only_way_to_sign_in_stays(platform: Platform, elsewhere: Elsewhere) -> None:
    subject = name()
    made = visit(platform, elsewhere, subject, email=f"{subject}@example.com", email_verified=True).sign_in()
    person = Member(platform, made.profile.email, made.session, made.profile)
    identity = person.identities.ListIdentities(LIST).identities[0]
    unlink = identity_pb2.UnlinkIdentityRequest(identity_id=identity.identity_id)
    assert fails(person.identities.UnlinkIdentity, unlink).reason == "LAST_SIGN_IN"
    assert person.identities.ListIdentities(LIST).identities
    assert person.passkeys.BeginPasskeyRegistration(passkey_pb2.BeginPasskeyRegistrationRequest())
    assert person.second.EnrollTotp(mfa_pb2.EnrollTotpRequest())


def callback(platform: Platform, **said: str) -> httpx.Response:
    return httpx.get(f"{platform.rest}/oauth/callback", params=said)


def test_only_the_answer_to_an_attempt_is_taken(platform: Platform, elsewhere: Elsewhere) -> None:
    subject = name()
    elsewhere.put(subject, email=f"{subject}@example.com")
    first, second = Program(platform), Program(platform)
    mine = parse_qs(urlsplit(elsewhere.authorize(first.url, subject)).query)
    state, code = mine["state"][0], mine["code"][0]
    unknown = callback(platform, state="unknown", code=code)
    assert unknown.status_code == 400
    assert "begin anew" in unknown.text
    # The code of one attempt with the state of another: it is not the nonce, nor the verifier, of that one.
    other = parse_qs(urlsplit(second.url).query)["state"][0]
    mixed = callback(platform, state=other, code=code)
    assert mixed.status_code == 400
    # A code that the provider does not know.
    assert callback(platform, state=state, code="invented").status_code == 400
    # Denied there: the program hears of it, and the attempt is over.
    third = Program(platform)
    # This provider leaves out the state, which RFC 6749, 4.1.2.1, wants.
    denied = f"{elsewhere.deny(third.url)}&state={parse_qs(urlsplit(third.url).query)['state'][0]}"
    assert third.follow(denied).code == ""
    assert httpx.get(denied).status_code == 400
    # An attempt that took too long.
    late = Program(platform)
    there = elsewhere.authorize(late.url, subject)
    move(platform, minutes=11)
    assert httpx.get(there).status_code == 400
    # What comes back twice is taken once.
    program = Program(platform)
    there = elsewhere.authorize(program.url, subject)
    program.follow(there)
    assert httpx.get(there).status_code == 400
    # The program's own: another verifier, another code.
    request = identity_pb2.SignInWithIdentityRequest(identity_code=program.code, code_verifier="y" * 43)
    assert fails(platform.anonymous.identities.SignInWithIdentity, request).violations[0].field == "code_verifier"
    assert program.sign_in().created


@pytest.mark.parametrize(
    "uri",
    ["https://evil.example/", "http://127.0.0.1:80@evil.example/", "http://localhost:9/", "http://127.0.0.1:9/?x=1",
     "javascript:alert(1)", "http://127.0.0.1/"],
)  # fmt: skip
def test_browsers_are_sent_on_to_this_machine_alone(platform: Platform, uri: str) -> None:
    request = identity_pb2.BeginIdentitySignInRequest(provider="acme", redirect_uri=uri, code_challenge="x" * 43)
    error = fails(platform.anonymous.identities.BeginIdentitySignIn, request)
    assert [v.field for v in error.violations] == ["redirect_uri"]


def test_a_provider_that_nobody_knows_or_that_is_away(platform: Platform, elsewhere: Elsewhere) -> None:
    request = identity_pb2.BeginIdentitySignInRequest(provider="nobody", redirect_uri=BACK, code_challenge="x" * 43)
    assert fails(platform.anonymous.identities.BeginIdentitySignIn, request).reason == "PROVIDER_NOT_FOUND"
    program = Program(platform, "github")
    with elsewhere.github_away():
        state = parse_qs(urlsplit(program.url).query)["state"][0]
        assert "does not answer" in callback(platform, state=state, code="x").text


def test_a_github_signs_in(platform: Platform, elsewhere: Elsewhere, mailbox: Mailbox) -> None:
    login = name()
    emails = [
        {"email": f"{login}@old.example", "primary": False, "verified": True, "visibility": None},
        {"email": f"{login}@example.com", "primary": True, "verified": True, "visibility": "private"},
    ]
    elsewhere.put_github(login, id=secrets.randbelow(10**9), name="Ada", emails=emails)
    program = Program(platform, "github")
    made = program.follow(elsewhere.authorize_github(program.url, login)).sign_in()
    assert made.created
    assert (made.profile.username, made.profile.email) == (login, f"{login}@example.com")
    assert not made.profile.is_verified  # GitHub does not own the address
    again = Program(platform, "github")
    assert again.follow(elsewhere.authorize_github(again.url, login)).sign_in().profile.user_id == made.profile.user_id
    # Who has the address of somebody here is not them for that.
    victim, thief = verified(platform, mailbox), name()
    elsewhere.put_github(
        thief, id=secrets.randbelow(10**9), emails=[{"email": victim.email, "primary": True, "verified": True}]
    )
    stolen = Program(platform, "github")
    assert stolen.follow(elsewhere.authorize_github(stolen.url, thief)).refused() == "IDENTITY_UNLINKED"


def test_many_at_once_make_one_account(platform: Platform, elsewhere: Elsewhere) -> None:
    from concurrent.futures import ThreadPoolExecutor

    subject = name()
    claims = {"email": f"{subject}@example.com", "email_verified": True}
    programs = [visit(platform, elsewhere, subject, **claims) for _ in range(6)]

    def end(program: Program) -> str:
        try:
            return program.sign_in().profile.user_id
        except grpc.RpcError as e:
            return from_rpc_error(e).reason

    with ThreadPoolExecutor(6) as threads:
        ended = list(threads.map(end, programs))
    users = {one for one in ended if one.startswith("usr_")}
    assert len(users) == 1
    assert set(ended) - users <= {"ACCOUNT_TAKEN", "IDENTITY_TAKEN"}
    assert visit(platform, elsewhere, subject, **claims).sign_in().profile.user_id in users

"""Single sign-on: an organisation's own provider, at a real one, and domains that a real name server tells of."""

from collections.abc import Callable

import grpc
import httpx
from mercat.auth.v1 import audit_pb2, auth_pb2, identity_pb2, signin_pb2, signin_pb2_grpc
from mercat.auth.v1 import organisation_pb2 as org
from mercat.auth.v1 import sso_pb2 as pb
from mercat.inference.v1 import inference_pb2

from tests.dns_server import DnsServer
from tests.expect import fails, until
from tests.integration.signin.companies import Company, subject
from tests.integration.signin.elsewhere import Elsewhere
from tests.integration.signin.people import Mailbox, Member, ends, member
from tests.integration.signin.test_devices import let_in
from tests.integration.signin.test_identities import Program
from tests.platform import PASSWORD, Account, Platform

ME = auth_pb2.GetProfileRequest()


def sign_in(platform: Platform, email: str) -> auth_pb2.SignInResponse:
    request = auth_pb2.SignInRequest(email=email, password=PASSWORD)
    answer: auth_pb2.SignInResponse = platform.anonymous.auth.SignIn(request)
    return answer


def test_newcomers_are_members_from_their_first_sign_in(platform: Platform, company: Company) -> None:
    who = subject()
    made = company.visit(who, name="Grace", preferred_username=who).sign_in()
    assert (made.created, made.organisation) == (True, company.handle)
    assert (made.profile.email, made.profile.is_verified) == (f"{who}@{company.domain}", True)
    assert company.roles()[made.profile.user_id] == "developer"
    switch = auth_pb2.RefreshSessionRequest(refresh_token=made.session.refresh_token, organisation=made.organisation)
    there = Account(platform, platform.anonymous.auth.RefreshSession(switch).session.access_token)
    assert there.auth.GetProfile(ME).profile.org_id == company.org_id
    # A role that was changed since stays.
    company.owner.organisations.SetMemberRole(org.SetMemberRoleRequest(user_id=made.profile.user_id, role="viewer"))
    again = company.visit(who).sign_in()
    assert (again.created, again.profile.user_id) == (False, made.profile.user_id)
    assert company.roles()[made.profile.user_id] == "viewer"
    asked = audit_pb2.ListAuditEntriesRequest(filter=audit_pb2.AuditFilter(action="SignInWithIdentity"))

    def told() -> list[str]:
        return [e.user_id for e in company.owner.audit.ListAuditEntries(asked).entries]

    until(lambda: told() == [made.profile.user_id])  # of the first time, which made them a member


def test_who_has_an_account_of_that_address_goes_on_with_it(
    platform: Platform, company: Company, employee: Callable[..., Member]
) -> None:
    person = employee(company.domain)
    signed = company.visit(subject(), email=person.email).sign_in()
    assert signed.profile.user_id == person.profile.user_id
    assert company.roles()[person.profile.user_id] == "developer"
    assert sign_in(platform, person.email).profile.user_id == person.profile.user_id  # it is not required
    # Whose address nobody verified proves it first: somebody else may have made the account.
    other = employee(company.domain, verified=False)
    who = subject()
    program = company.visit(who, email=other.email)
    refused = fails(platform.anonymous.identities.SignInWithIdentity, program.request())
    assert refused.reason == "IDENTITY_UNLINKED"
    assert f"--sso {company.domain}" in refused.message
    link = company.visit(who, other, email=other.email)
    request = identity_pb2.LinkIdentityRequest(identity_code=link.code, code_verifier=link.verifier)
    other.identities.LinkIdentity(request)
    assert company.roles()[other.profile.user_id] == "developer"
    assert company.visit(who, email=other.email).sign_in().profile.user_id == other.profile.user_id


def test_a_provider_speaks_for_verified_addresses_of_its_own_domains_alone(
    platform: Platform, company: Company, employee: Callable[..., Member]
) -> None:
    victim = member(platform)
    for claims in ({"email": victim.email}, {"email": f"{subject()}@sub.{company.domain}"}, {"email_verified": False}):
        assert company.visit(subject(), **claims).refused() == "SSO_ADDRESS_REFUSED"
    assert list(company.roles().values()) == ["owner"]
    begin = identity_pb2.BeginIdentitySignInRequest(
        domain="nobody.example", redirect_uri="http://127.0.0.1:9/callback", code_challenge="x" * 43
    )
    assert fails(platform.anonymous.identities.BeginIdentitySignIn, begin).reason == "SSO_NOT_FOUND"
    begin.provider = "acme"
    assert [v.field for v in fails(platform.anonymous.identities.BeginIdentitySignIn, begin).violations] == ["provider"]


def test_a_domain_is_proved_by_its_record(
    platform: Platform, unproved: Company, elsewhere: Elsewhere, names: DnsServer
) -> None:
    unproved.connect()
    begin = identity_pb2.BeginIdentitySignInRequest(
        domain=unproved.domain, redirect_uri="http://127.0.0.1:9/callback", code_challenge="x" * 43
    )
    add = pb.AddSsoDomainRequest(domain=unproved.domain)
    record = unproved.owner.sso.AddSsoDomain(add).domain
    assert unproved.owner.sso.AddSsoDomain(add).domain == record
    verify = pb.VerifySsoDomainRequest(domain=unproved.domain)
    for texts in (None, [], ["mercat-domain-verification=other"]):
        if texts is not None:
            names.records[record.record_name] = texts
        missing = fails(unproved.owner.sso.VerifySsoDomain, verify)
        assert (missing.reason, missing.metadata["record_value"]) == ("SSO_RECORD_MISSING", record.record_value)
    assert fails(platform.anonymous.identities.BeginIdentitySignIn, begin).reason == "SSO_NOT_FOUND"
    names.silent = True
    try:
        assert fails(unproved.owner.sso.VerifySsoDomain, verify).reason == "DNS_UNAVAILABLE"
    finally:
        names.silent = False
    names.records[record.record_name] = ["v=spf1 -all", record.record_value]
    assert unproved.owner.sso.VerifySsoDomain(verify).domain.HasField("verified_at")
    assert platform.anonymous.identities.BeginIdentitySignIn(begin).authorization_url
    other = Company(platform.organisation(platform.sign_up()), unproved.domain, elsewhere)
    theirs = other.owner.sso.AddSsoDomain(add).domain
    names.records[record.record_name].append(theirs.record_value)
    assert fails(other.owner.sso.VerifySsoDomain, verify).reason == "SSO_DOMAIN_TAKEN"
    unproved.owner.sso.RemoveSsoDomain(pb.RemoveSsoDomainRequest(domain=unproved.domain))
    assert other.owner.sso.VerifySsoDomain(verify).domain.HasField("verified_at")
    assert fails(unproved.owner.sso.VerifySsoDomain, verify).reason == "SSO_DOMAIN_NOT_FOUND"
    for domain in ("Acme.com", "acme", "-a.com", "a b.com"):
        request = pb.AddSsoDomainRequest(domain=domain)
        assert [v.field for v in fails(unproved.owner.sso.AddSsoDomain, request).violations] == ["domain"]


def test_where_it_is_required_there_is_no_other_way_but_for_owners(
    platform: Platform, company: Company, elsewhere: Elsewhere, employee: Callable[..., Member], names: DnsServer
) -> None:
    person, stays = employee(company.domain), employee(company.domain, verified=False)
    boss = employee(company.domain)
    company.hire(boss, "owner")
    company.connect(required=True, default_role="developer")
    refused = fails(
        platform.anonymous.auth.SignIn, auth_pb2.SignInRequest(email=person.email, password=PASSWORD)
    )  # fmt: skip
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "SSO_REQUIRED")
    assert refused.metadata["domain"] == company.domain
    wrong = auth_pb2.SignInRequest(email=person.email, password="not the password at all")
    assert (
        fails(platform.anonymous.auth.SignIn, wrong).reason == "SIGN_IN_FAILED"
    )  # it is told to who knows the password
    # Nor with another account elsewhere, whoever owns the addresses there, nor by making one anew.
    who = subject()
    elsewhere.put(who, email=person.email, email_verified=True)
    by_other = Program(platform, "acme")
    by_other.follow(elsewhere.authorize(by_other.url, who))
    assert by_other.refused() == "SSO_REQUIRED"
    newcomer = subject()
    elsewhere.put(newcomer, email=f"{newcomer}@{company.domain}", email_verified=True)
    by_other = Program(platform, "acme")
    by_other.follow(elsewhere.authorize(by_other.url, newcomer))
    assert by_other.refused() == "SSO_REQUIRED"
    up = auth_pb2.SignUpRequest(email=f"{subject()}@{company.domain}", username=subject(), password=PASSWORD)
    assert fails(platform.anonymous.auth.SignUp, up).reason == "SSO_REQUIRED"
    # By the organisation's they do.
    signed = company.visit(subject(), email=person.email).sign_in()
    assert signed.profile.user_id == person.profile.user_id
    # Owners have a way in when the provider is broken; whoever could not link otherwise signs in until they have.
    assert sign_in(platform, boss.email).profile.user_id == boss.profile.user_id
    back = sign_in(platform, stays.email)
    stays = Member(platform, stays.email, back.session, back.profile)
    link = company.visit(subject(), stays, email=stays.email)
    stays.identities.LinkIdentity(
        identity_pb2.LinkIdentityRequest(identity_code=link.code, code_verifier=link.verifier)
    )  # fmt: skip
    again = auth_pb2.SignInRequest(email=stays.email, password=PASSWORD)
    assert fails(platform.anonymous.auth.SignIn, again).reason == "SSO_REQUIRED"
    company.connect(required=False)
    assert sign_in(platform, person.email).profile.user_id == person.profile.user_id


def test_sessions_that_did_not_come_by_it_act_for_the_organisation_no_more(
    platform: Platform, company: Company, employee: Callable[..., Member], mailbox: Mailbox
) -> None:
    def at_work(refresh_token: str, organisation: str = "") -> auth_pb2.Session:
        asked = auth_pb2.RefreshSessionRequest(refresh_token=refresh_token, organisation=organisation or company.handle)
        session: auth_pb2.Session = platform.anonymous.auth.RefreshSession(asked).session
        return session

    person = employee(company.domain)
    by_provider = company.hire(person, "developer")
    owner = Member(platform, company.owner.email, auth_pb2.Session(), company.owner.profile).again()
    owner.passwords.VerifyEmail(signin_pb2.VerifyEmailRequest(code=mailbox.code(owner.email)))  # who invites
    guest = platform.join(company.owner, employee("elsewhere.example").account, "developer")
    before = at_work(person.session.refresh_token)
    stale = Account(platform, before.access_token)
    key = Account(platform, stale.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="k")).secret)
    made = company.owner.service_accounts.CreateServiceAccount(
        org.CreateServiceAccountRequest(name="ci", role="developer")
    ).service_account  # fmt: skip
    request = org.CreateOrganisationKeyRequest(name="ci", service_account_id=made.service_account_id)
    program = Account(platform, company.owner.service_accounts.CreateOrganisationKey(request).secret)
    jobs = inference_pb2.ListJobsRequest()
    for account in (stale, by_provider, guest, key, program):
        account.jobs.ListJobs(jobs)

    company.connect(required=True, default_role="developer")
    assert ends(stale.auth.GetProfile, ME) == "SSO_REQUIRED"
    assert ends(stale.jobs.ListJobs, jobs) == "SSO_REQUIRED"  # of a worker, which knew the session
    refused = httpx.get(f"{platform.rest}/v1/me", headers={"authorization": f"Bearer {before.access_token}"})
    assert refused.status_code == 401
    assert company.domain in refused.text
    for account in (by_provider, guest, company.owner):
        account.auth.GetProfile(ME)
    for account in (by_provider, guest, key, program):
        account.jobs.ListJobs(jobs)
    # Nor is it renewed; for the person's own organisation it is.
    asked = auth_pb2.RefreshSessionRequest(refresh_token=before.refresh_token)
    assert fails(platform.anonymous.auth.RefreshSession, asked).reason == "SSO_REQUIRED"
    own = at_work(before.refresh_token, person.profile.username)
    assert Account(platform, own.access_token).auth.GetProfile(ME).profile.user_id == person.profile.user_id
    asked = auth_pb2.RefreshSessionRequest(refresh_token=own.refresh_token, organisation=company.handle)
    assert fails(platform.anonymous.auth.RefreshSession, asked).reason == "SSO_REQUIRED"
    # A device is what let it in.
    member_by_provider = Member(platform, person.email, auth_pb2.Session(), person.profile)
    for access_token, reason in ((own.access_token, "SSO_REQUIRED"), (by_provider.api_key, "")):
        member_by_provider.session.access_token = access_token
        device = let_in(platform, member_by_provider)
        asked = auth_pb2.RefreshSessionRequest(refresh_token=device.refresh_token, organisation=company.handle)
        if reason:
            assert fails(platform.anonymous.auth.RefreshSession, asked).reason == reason
        else:
            there = platform.anonymous.auth.RefreshSession(asked).session
            Account(platform, there.access_token).auth.GetProfile(ME)
    company.connect(required=False, default_role="developer")
    assert Account(platform, at_work(own.refresh_token).access_token).auth.GetProfile(ME)


def test_who_would_be_locked_out_is_named(platform: Platform, company: Company, mailbox: Mailbox) -> None:
    who = subject()
    made = company.visit(who, preferred_username=who).sign_in()
    for call, request in (
        (company.owner.sso.DeleteSsoConnection, pb.DeleteSsoConnectionRequest()),
        (company.owner.sso.RemoveSsoDomain, pb.RemoveSsoDomainRequest(domain=company.domain)),
    ):
        only = fails(call, request)
        assert (only.reason, only.metadata["usernames"]) == ("SSO_ONLY_WAY", made.profile.username)
    company.owner.sso.DeleteSsoConnection(pb.DeleteSsoConnectionRequest(force=True))
    assert fails(company.owner.sso.GetSsoConnection, pb.GetSsoConnectionRequest()).reason == "SSO_NOT_FOUND"
    assert made.profile.user_id in company.roles()
    # Their mail sets a password.
    email = made.profile.email
    passwords = signin_pb2_grpc.PasswordServiceStub(platform.channel)
    passwords.RequestPasswordReset(signin_pb2.RequestPasswordResetRequest(email=email))
    code = mailbox.code(email)
    passwords.ResetPassword(signin_pb2.ResetPasswordRequest(code=code, password=PASSWORD))
    assert sign_in(platform, email).profile.user_id == made.profile.user_id
    # With a password there is nobody to name.
    company.connect()
    company.visit(who).sign_in()
    company.owner.sso.DeleteSsoConnection(pb.DeleteSsoConnectionRequest())


def test_a_connection_is_an_owners_and_keeps_its_secret(
    platform: Platform, company: Company, elsewhere: Elsewhere, employee: Callable[..., Member]
) -> None:
    first = company.owner.sso.GetSsoConnection(pb.GetSsoConnectionRequest()).connection
    assert (first.issuer, first.default_role, first.required) == (elsewhere.issuer, "developer", False)
    kept = company.connect(client_secret="", default_role="viewer", etag=first.etag)
    assert kept.default_role == "viewer"
    assert company.visit(subject()).sign_in().created  # this provider wants the secret
    stale = pb.SetSsoConnectionRequest(issuer=elsewhere.issuer, client_id="mercat", etag=first.etag)
    assert fails(company.owner.sso.SetSsoConnection, stale).code is grpc.StatusCode.ABORTED
    admin = company.hire(employee(company.domain), "admin")
    assert fails(admin.sso.SetSsoConnection, stale).reason == "SCOPE_MISSING"
    for wrong, field in (
        ({"default_role": "owner"}, "default_role"), ({"default_role": "none-such"}, "role"),
        ({"issuer": "http://idp.example"}, "issuer"),
    ):  # fmt: skip
        asked = {"issuer": elsewhere.issuer, "client_id": "mercat"} | wrong
        error = fails(company.owner.sso.SetSsoConnection, pb.SetSsoConnectionRequest(**asked))
        assert [v.field for v in error.violations] == [field]
    away = pb.SetSsoConnectionRequest(issuer=f"{elsewhere.issuer}/nobody", client_id="mercat")
    assert fails(company.owner.sso.SetSsoConnection, away).reason == "PROVIDER_UNAVAILABLE"
    alone = platform.session(platform.sign_up())
    here = pb.SetSsoConnectionRequest(issuer=elsewhere.issuer, client_id="mercat")
    assert fails(alone.sso.SetSsoConnection, here).reason == "PERSONAL_ORGANISATION"
    role = org.SetRoleRequest(name="newcomer", scopes=["models:read"])
    company.owner.organisations.SetRole(role)
    company.connect(default_role="newcomer")
    in_use = fails(company.owner.organisations.DeleteRole, org.DeleteRoleRequest(name="newcomer"))
    assert in_use.reason == "ROLE_IN_USE"

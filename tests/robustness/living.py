"""Somebody who does everything that leaves a trace, in words that are like nothing else: with their account, their
organisations, their money. What they do with models is in `publishing.py`, which is part of it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import httpx
from mercat.auth.v1 import (
    auth_pb2,
    identity_pb2,
    keys_pb2,
    mfa_pb2,
    oauth_pb2,
    organisation_pb2,
    passkey_pb2,
    privacy_pb2,
    signin_pb2,
    sso_pb2,
    team_pb2,
)
from mercat.billing.v1 import billing_pb2, budgets_pb2, credits_pb2, payments_pb2, payouts_pb2, plans_pb2, prices_pb2
from mercat.common.v1 import limits_pb2
from mercat.inference.v1 import inference_pb2

from tests.expect import until
from tests.integration.signin.elsewhere import Elsewhere
from tests.integration.signin.people import Member, code_of, move, now
from tests.integration.signin.test_identities import Program
from tests.platform import PASSWORD, USD, Account, Platform

PLACE = "127.77.66.55"
SECRET = "known to a provider and to Mercat"
X = inference_pb2.Tensor(name="x", datatype="FP32", shape=[1, 4], raw=bytes(16))


@dataclass
class Marked:
    """A person each of whose words is like nothing else."""

    word: str

    @property
    def email(self) -> str:
        return f"{self.word}mail@example.com"

    @property
    def handle(self) -> str:
        return f"{self.word}handle"

    @property
    def organisation(self) -> str:
        return f"{self.word}org"

    def forms(self) -> list[bytes]:
        """What to look for: the word in any case, and in hex as tables show bytes."""
        return [self.word.encode(), self.word.upper().encode(), self.word.encode().hex().encode()]


def quietly(call: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return call(*args, **kwargs)
    except (grpc.RpcError, httpx.HTTPError):
        return None


def call(account: Account, model: str, **options: Any) -> inference_pb2.PredictResponse:
    request = inference_pb2.PredictRequest(model=model, inputs=[X])
    return account.inference.Predict(request, **options)  # type: ignore[no-any-return]


def arrive(platform: Platform, person: Marked) -> Member:
    """They sign up, from an address of their own, with a program of their own."""
    signup = {
        "email": person.email, "username": person.handle, "password": PASSWORD, "role": "ROLE_PUBLISHER",
        "displayName": f"{person.word} name",
    }  # fmt: skip
    with there(platform, person) as client:
        signed = client.post("/v1/signup", json=signup).json()
        client.post("/v1/signup", json=signup)  # once more: refused by the database
        client.post("/v1/signin", json={"email": person.email, "password": f"{person.word} wrong"})
        client.post("/v1/signin", json={"email": person.email, "password": PASSWORD})
        client.post("/v1/password:requestReset", json={"email": person.email})
        client.headers["authorization"] = f"Bearer {signed['session']['accessToken']}"
        client.post("/v1/keys", json={"name": f"{person.word} key"})
        client.get("/v1/me")
    session = auth_pb2.Session(
        access_token=signed["session"]["accessToken"], refresh_token=signed["session"]["refreshToken"]
    )
    member = Member(platform, person.email, session, auth_pb2.Profile())
    member.profile.CopyFrom(member.account.auth.GetProfile(auth_pb2.GetProfileRequest()).profile)
    return member


def there(platform: Platform, person: Marked) -> httpx.Client:
    transport = httpx.HTTPTransport(local_address=PLACE)
    agent = {"user-agent": f"{person.word}-agent/1"}
    return httpx.Client(base_url=platform.rest, transport=transport, headers=agent, timeout=30)


def sign_in_otherwise(platform: Platform, person: Marked, member: Member, elsewhere: Elsewhere) -> None:
    """An account elsewhere, and one that was begun; a device; a passkey that was begun; what they agreed to; keys."""
    elsewhere.put(
        person.word, email=f"{person.word}@elsewhere.example", email_verified=True, name=f"{person.word} name"
    )
    program = Program(platform, person=member)
    program.follow(elsewhere.authorize(program.url, person.word))
    link = identity_pb2.LinkIdentityRequest(identity_code=program.code, code_verifier=program.verifier)
    member.identities.LinkIdentity(link)
    Program(platform, person=member)
    asked = platform.anonymous.oauth.AuthorizeDevice(oauth_pb2.AuthorizeDeviceRequest(client_id="mercat-cli"))
    member.devices.ApproveDevice(oauth_pb2.ApproveDeviceRequest(user_code=asked.user_code))
    member.passkeys.BeginPasskeyRegistration(passkey_pb2.BeginPasskeyRegistrationRequest())
    member.consents.SetConsent(
        privacy_pb2.SetConsentRequest(kind=privacy_pb2.Consent.KIND_MARKETING_MAIL, granted=True)
    )
    key = member.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name=f"{person.word} signed")).api_key
    member.keys.CreateSigningKey(
        keys_pb2.CreateSigningKeyRequest(key_id=key.key_id, algorithm=auth_pb2.SIGNATURE_ALGORITHM_HMAC_SHA256)
    )
    quietly(member.passwords.SendVerification, signin_pb2.SendVerificationRequest())


def add_second_factor(platform: Platform, member: Member) -> list[str]:
    """Its recovery codes."""
    secret = member.second.EnrollTotp(mfa_pb2.EnrollTotpRequest()).secret
    answer = member.second.ConfirmTotp(mfa_pb2.ConfirmTotpRequest(code=code_of(platform, secret)))
    return list(answer.recovery_codes)


def join(platform: Platform, person: Marked, account: Account, team: Account, elsewhere: Elsewhere) -> None:
    """Organisations: one that is theirs alone, with all that one can have, and one of others that they are in."""
    word = person.word
    account.organisations.CreateOrganisation(
        organisation_pb2.CreateOrganisationRequest(handle=person.organisation, display_name=f"{word} inc")
    )
    code = team.invitations.CreateInvitation(
        organisation_pb2.CreateInvitationRequest(email=person.email, role="developer")
    ).code
    account.invitations.AcceptInvitation(organisation_pb2.AcceptInvitationRequest(code=code))
    with there(platform, person) as client:
        again = client.post("/v1/signin", json={"email": person.email, "password": PASSWORD}).json()["session"]
        into = {"refreshToken": again["refreshToken"], "organisation": team.profile.organisation}
        token = client.post("/v1/sessions:refresh", json=into).json()["session"]["accessToken"]
        made = client.post("/v1/keys", json={"name": f"{word} there"}, headers={"authorization": f"Bearer {token}"})
        assert made.status_code == 200, made.text
    elsewhere_too = platform.organisation(platform.sign_up())  # an invitation that is never answered
    elsewhere_too.invitations.CreateInvitation(
        organisation_pb2.CreateInvitationRequest(email=person.email, role="viewer")
    )
    inc = platform.session(account, person.organisation)
    inc.invitations.CreateInvitation(
        organisation_pb2.CreateInvitationRequest(email="somebody@example.com", role="viewer")
    )
    inc.teams.CreateTeam(team_pb2.CreateTeamRequest(name=f"{word}team"))
    inc.organisations.SetRole(organisation_pb2.SetRoleRequest(name=f"{word}role", scopes=["usage:read"]))
    inc.sso.AddSsoDomain(sso_pb2.AddSsoDomainRequest(domain=f"{word}.example.com"))
    inc.sso.SetSsoConnection(
        sso_pb2.SetSsoConnectionRequest(issuer=elsewhere.issuer, client_id=f"{word}-client", client_secret=SECRET,
                                      default_role="viewer")
    )  # fmt: skip
    program = organisation_pb2.CreateServiceAccountRequest(name=f"{word}-ci", role="developer")
    service_account = inc.service_accounts.CreateServiceAccount(program).service_account
    inc.oauth_clients.CreateOAuthClient(
        oauth_pb2.CreateOAuthClientRequest(
            name=f"{word} nightly", service_account_id=service_account.service_account_id
        )
    )
    made = team.teams.CreateTeam(team_pb2.CreateTeamRequest(name="everybody")).team
    team.teams.AddTeamMember(team_pb2.AddTeamMemberRequest(team_id=made.team_id, user_id=account.profile.user_id))


def earn(platform: Platform, person: Marked, account: Account, others: Account, model: str) -> None:
    """A month in which others call a model of theirs, and they something: it is invoiced, rolled up, and paid out."""
    account.payouts.ConnectPayoutAccount(payouts_pb2.ConnectPayoutAccountRequest())
    account.top_up(USD)
    call(account, model)
    for _ in range(3):
        call(others, model)
    until(lambda: account.earned())
    move(platform, days=32)
    named = f"WHERE model LIKE '{person.handle}/%'"
    until(lambda: platform.value(f"SELECT count(*) FROM usage.usage_rollups {named}"), 60)
    until(lambda: platform.value(f"SELECT count(*) FROM billing.payout_lines {named}"), 60)
    drafts = f"SELECT count(*) FROM billing.invoices WHERE org_id = '{others.profile.org_id}'"
    until(lambda: platform.value(drafts), 60)
    move(platform, days=1)
    until(lambda: platform.value(f"SELECT count(*) FROM billing.invoice_lines {named}"), 60)


def pay(platform: Platform, person: Marked, account: Account, others: Account, model: str) -> None:
    """Money, cards, plans, budgets, prices; calls by others of a model of theirs, one of which they give back."""
    word, admin = person.word, platform.admin()
    others.budgets.SetBudget(
        budgets_pb2.SetBudgetRequest(name="theirs", model=model, period=budgets_pb2.BUDGET_PERIOD_MONTHLY,
                                        limit_nanos=100 * USD)
    )  # fmt: skip
    others.budgets.SetBudget(
        budgets_pb2.SetBudgetRequest(name="told", model=model, period=budgets_pb2.BUDGET_PERIOD_DAILY, limit_nanos=1,
                                        notify_only=True, thresholds=[1])
    )  # fmt: skip
    account.prices.SetDiscount(
        prices_pb2.SetDiscountRequest(org_id=others.profile.org_id, model=model, discount_ppm=1000)
    )
    given = call(others, model).request_id
    until(lambda: quietly(account.payouts.RefundCall,
                          payouts_pb2.RefundCallRequest(request_id=given, reason=f"{word} is sorry")))  # fmt: skip
    later = billing_pb2.SetModelPriceRequest(
        model=model, components=[billing_pb2.PriceComponent(meter="requests", nanos_per_million=10**13)]
    )
    later.effective_at.FromDatetime(datetime.fromtimestamp(now(platform), UTC) + timedelta(days=40))
    account.billing.SetModelPrice(later)
    account.plans.SetModelOffer(plans_pb2.SetModelOfferRequest(model=model, monthly_nanos=USD))
    account.top_up(20 * USD)
    account.payments.AttachPaymentMethod(payments_pb2.AttachPaymentMethodRequest(payment_method="pm_card_visa"))
    wanted = payments_pb2.AutoTopUp(enabled=True, threshold_nanos=USD, amount_nanos=10 * USD)
    account.payments.SetAutoTopUp(payments_pb2.SetAutoTopUpRequest(auto_top_up=wanted))
    paid = account.payments.CreatePayment(payments_pb2.CreatePaymentRequest(amount_nanos=10 * USD)).payment
    back = payments_pb2.RefundPaymentRequest(payment_id=paid.payment_id, amount_nanos=USD, reason=f"for {word}")
    until(lambda: quietly(admin.payments.RefundPayment, back))
    grant = credits_pb2.CreateCreditGrantRequest(
        org_id=account.profile.org_id, amount_nanos=USD, reason=f"welcome, {word}"
    )
    admin.credits.CreateCreditGrant(grant)
    account.plans.ChangePlan(plans_pb2.ChangePlanRequest(plan_id="pro"))
    account.budgets.SetBudget(
        budgets_pb2.SetBudgetRequest(name=f"{word}-budget", period=budgets_pb2.BUDGET_PERIOD_MONTHLY,
                                        limit_nanos=USD)
    )  # fmt: skip
    call(account, model, metadata=[("mercat-tag", f"by={word}")])
    made = account.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name=f"{word} once"))
    once = limits_pb2.CallLimit(daily=limits_pb2.CallQuota(soft=1, hard=1))
    account.limits.SetKeyLimit(auth_pb2.SetKeyLimitRequest(key_id=made.api_key.key_id, limit=once))
    limited = Account(platform, made.secret)
    until(lambda: quietly(call, limited, model) is None)
    account.jobs.CreateJob(
        inference_pb2.CreateJobRequest(predict=inference_pb2.PredictRequest(model=model, inputs=[X]))
    )

"""A stub of every public service."""

from collections.abc import Callable
from typing import Generic, TypeVar

import grpc
from mercat.auth.v1 import (
    audit_pb2_grpc,
    auth_pb2_grpc,
    identity_pb2_grpc,
    keys_pb2_grpc,
    mfa_pb2_grpc,
    oauth_pb2_grpc,
    organisation_pb2_grpc,
    passkey_pb2_grpc,
    privacy_pb2_grpc,
    sessions_pb2_grpc,
    signin_pb2_grpc,
    sso_pb2_grpc,
    team_pb2_grpc,
)
from mercat.billing.v1 import (
    billing_pb2_grpc,
    budgets_pb2_grpc,
    corrections_pb2_grpc,
    credits_pb2_grpc,
    invoices_pb2_grpc,
    payments_pb2_grpc,
    payouts_pb2_grpc,
    plans_pb2_grpc,
    prices_pb2_grpc,
    proof_pb2_grpc,
)
from mercat.inference.v1 import inference_pb2_grpc, text_pb2_grpc
from mercat.marketplace.v1 import (
    collections_pb2_grpc,
    discovery_pb2_grpc,
    marketplace_pb2_grpc,
    publishers_pb2_grpc,
    reviews_pb2_grpc,
)
from mercat.notification.v1 import webhooks_pb2_grpc
from mercat.registry.v1 import (
    access_pb2_grpc,
    card_pb2_grpc,
    lineage_pb2_grpc,
    provenance_pb2_grpc,
    registry_pb2_grpc,
    transfer_pb2_grpc,
)
from mercat.storage.v1 import storage_pb2_grpc
from mercat.usage.v1 import usage_pb2_grpc

T = TypeVar("T")


class _Stub(Generic[T]):
    """Made when first asked for."""

    def __init__(self, kind: Callable[[grpc.Channel], T]) -> None:
        self._kind = kind

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, stubs: "Stubs", owner: type) -> T:
        made = self._kind(stubs.channel)
        stubs.__dict__[self._name] = made  # found before this from then on
        return made


class Stubs:
    """All calls go over `channel`."""

    channel: grpc.Channel

    auth = _Stub(auth_pb2_grpc.AuthServiceStub)
    privacy = _Stub(privacy_pb2_grpc.PrivacyServiceStub)
    consents = _Stub(privacy_pb2_grpc.ConsentServiceStub)
    keys = _Stub(keys_pb2_grpc.ApiKeyServiceStub)
    organisations = _Stub(organisation_pb2_grpc.OrganisationServiceStub)
    invitations = _Stub(organisation_pb2_grpc.InvitationServiceStub)
    teams = _Stub(team_pb2_grpc.TeamServiceStub)
    sso = _Stub(sso_pb2_grpc.SsoServiceStub)
    service_accounts = _Stub(organisation_pb2_grpc.ServiceAccountServiceStub)
    audit = _Stub(audit_pb2_grpc.AuditServiceStub)
    passwords = _Stub(signin_pb2_grpc.PasswordServiceStub)
    sessions = _Stub(sessions_pb2_grpc.SessionServiceStub)
    identities = _Stub(identity_pb2_grpc.IdentityServiceStub)
    passkeys = _Stub(passkey_pb2_grpc.PasskeyServiceStub)
    oauth = _Stub(oauth_pb2_grpc.OAuthServiceStub)
    oauth_clients = _Stub(oauth_pb2_grpc.OAuthClientServiceStub)
    devices = _Stub(oauth_pb2_grpc.DeviceServiceStub)
    second_factor = _Stub(mfa_pb2_grpc.SecondFactorServiceStub)
    billing = _Stub(billing_pb2_grpc.BillingServiceStub)
    plans = _Stub(plans_pb2_grpc.PlanServiceStub)
    invoices = _Stub(invoices_pb2_grpc.InvoiceServiceStub)
    payouts = _Stub(payouts_pb2_grpc.PayoutServiceStub)
    payments = _Stub(payments_pb2_grpc.PaymentServiceStub)
    budgets = _Stub(budgets_pb2_grpc.BudgetServiceStub)
    credits = _Stub(credits_pb2_grpc.CreditServiceStub)
    receipts = _Stub(billing_pb2_grpc.ReceiptServiceStub)
    corrections = _Stub(corrections_pb2_grpc.CorrectionServiceStub)
    inference = _Stub(inference_pb2_grpc.InferenceServiceStub)
    jobs = _Stub(inference_pb2_grpc.JobServiceStub)
    limits = _Stub(auth_pb2_grpc.LimitServiceStub)
    marketplace = _Stub(marketplace_pb2_grpc.MarketplaceServiceStub)
    discovery = _Stub(discovery_pb2_grpc.DiscoveryServiceStub)
    publishers = _Stub(publishers_pb2_grpc.PublisherServiceStub)
    collections = _Stub(collections_pb2_grpc.CollectionServiceStub)
    reviews = _Stub(reviews_pb2_grpc.ReviewServiceStub)
    prices = _Stub(prices_pb2_grpc.PriceServiceStub)
    proof = _Stub(proof_pb2_grpc.ProofServiceStub)
    cards = _Stub(card_pb2_grpc.CardServiceStub)
    lineage = _Stub(lineage_pb2_grpc.LineageServiceStub)
    publisher_keys = _Stub(provenance_pb2_grpc.PublisherKeyServiceStub)
    registry = _Stub(registry_pb2_grpc.RegistryServiceStub)
    access = _Stub(access_pb2_grpc.AccessServiceStub)
    transfers = _Stub(transfer_pb2_grpc.TransferServiceStub)
    storage = _Stub(storage_pb2_grpc.StorageServiceStub)
    text = _Stub(text_pb2_grpc.TextServiceStub)
    usage = _Stub(usage_pb2_grpc.UsageServiceStub)
    webhooks = _Stub(webhooks_pb2_grpc.WebhookEndpointServiceStub)

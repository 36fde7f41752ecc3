"""Who may not: every RPC, over gRPC and over REST, for who is anonymous, lacks a scope or a role, or is of another
organisation. All of it comes from the contracts, so that an RPC is here from the day it is made; one whose request
names something must say below what that is."""

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from mercat.auth.v1 import auth_pb2, keys_pb2, oauth_pb2, privacy_pb2, sessions_pb2, sso_pb2, team_pb2
from mercat.auth.v1 import organisation_pb2 as org
from mercat.billing.v1 import billing_pb2, budgets_pb2, invoices_pb2, payments_pb2, plans_pb2
from mercat.common.v1 import policy_pb2, rule_pb2
from mercat.inference.v1 import inference_pb2
from mercat.marketplace.v1 import collections_pb2, marketplace_pb2
from mercat.notification.v1 import webhooks_pb2
from mercat.registry.v1 import access_pb2, provenance_pb2, registry_pb2, transfer_pb2, visibility_pb2
from mercat.storage.v1 import storage_pb2
from mercat.usage.v1 import usage_pb2

from gateway_rest import contracts
from gateway_rest.contracts import Binding
from services.common import attesting
from services.common.errors import from_rpc_error
from tests import graphs
from tests.expect import until
from tests.platform import USD, Account, Platform

METHODS = list(contracts.methods())
GUARDED = [m for m in METHODS if contracts.policy(m).access == policy_pb2.ACCESS_ACCOUNT]
INTERNAL = [m for m in METHODS if contracts.policy(m).access == policy_pb2.ACCESS_INTERNAL]
BINDINGS = {name: [b for b in contracts.bindings() if b.method.full_name == name] for name in {
    b.method.full_name for b in contracts.bindings()
}}  # fmt: skip
# As it is documented, not as the code has it.
VIEWER = {"account:write", "keys:read", "members:read", "models:read", "usage:read"}
BILLING = VIEWER | {"billing:read", "billing:write"}
DEVELOPER = VIEWER | {"inference:call", "keys:write", "models:write", "webhooks:read", "webhooks:write"}
ADMIN = BILLING | DEVELOPER | {"audit:read", "keys:share", "members:write", "organisation:write"}
ROLES = {
    "viewer": VIEWER, "billing": BILLING, "developer": DEVELOPER, "admin": ADMIN, "owner": ADMIN | {"organisation:own"}
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """How a call ended: `code` is a gRPC code or an HTTP status."""

    code: object
    reason: str
    said: str

    def without(self, *names: str) -> "Outcome":
        """Without what differs by nature: the names given, ids, times."""
        said = self.said
        for name in names:
            said = said.replace(name, "…").replace(name.replace("/", "%2F"), "…")
        said = re.sub(r"[a-z]{3}_[0-9a-z]{26}|mk_live_\w+", "…", said)
        said = re.sub(r"\d{4}-\d\d-\d\dT[0-9:.]+Z?|seconds: \d+|nanos: \d+", "…", said)
        return Outcome(self.code, self.reason, said)


def by_grpc(platform: Platform, method: MethodDescriptor, request: Message, credential: str) -> Outcome:
    path = f"/{method.containing_service.full_name}/{method.name}"
    kind = ("stream" if method.client_streaming else "unary") + "_" + (
        "stream" if method.server_streaming else "unary"
    )  # fmt: skip
    reply = message_factory.GetMessageClass(method.output_type)
    call = getattr(platform.channel, kind)(
        path, request_serializer=lambda m: m.SerializeToString(), response_deserializer=reply.FromString
    )
    metadata = [("authorization", f"Bearer {credential}")] if credential else []
    try:
        answer = call(iter([request]) if method.client_streaming else request, metadata=metadata, timeout=20)
        answers = list(answer) if method.server_streaming else [answer]
    except grpc.RpcError as e:
        error = from_rpc_error(e)
        return Outcome(error.code, error.reason, error.message)
    return Outcome(grpc.StatusCode.OK, "", "\n".join(str(a) for a in answers))


def by_rest(platform: Platform, binding: Binding, request: Message, credential: str) -> Outcome:
    fields = json_format.MessageToDict(request, preserving_proto_field_name=True)
    path = re.sub(
        r"\{(\w+)(?:=([^}]*))?\}",
        lambda m: str(fields.pop(m[1], "x/y" if "/" in (m[2] or "") else "x")), binding.template.text,
    )  # fmt: skip
    headers = {"authorization": f"Bearer {credential}"} if credential else {}
    content, query = None, {}
    if binding.takes_bytes:
        content, headers["content-type"] = b"{}", "application/octet-stream"
        fields.pop(binding.body, None)
    elif binding.body:
        streamed = [fields] if binding.method.client_streaming else fields
        content, headers["content-type"] = json.dumps(streamed).encode(), "application/json"
    if binding.body != "*":
        query = {k: v for k, v in fields.items() if not isinstance(v, dict) and k != binding.body}
    answer = httpx.request(
        binding.verb, platform.rest + path, headers=headers, content=content, params=query, timeout=20
    )
    if answer.is_success:
        return Outcome(answer.status_code, "", answer.text)
    error = answer.json()["error"]
    return Outcome(answer.status_code, error["details"][0]["reason"], error["message"])


def everywhere(platform: Platform, method: MethodDescriptor, request: Message, credential: str) -> Iterator[Outcome]:
    """A call over gRPC, and over each way to make it over REST."""
    yield by_grpc(platform, method, request, credential)
    for binding in BINDINGS[method.full_name]:
        yield by_rest(platform, binding, request, credential)


def empty(method: MethodDescriptor) -> Message:
    return message_factory.GetMessageClass(method.input_type)()


def named(methods: list[MethodDescriptor]) -> Any:
    return pytest.mark.parametrize("method", methods, ids=lambda m: m.full_name.removeprefix("mercat."))


@named(GUARDED)
def test_nobody_calls_it_anonymously(platform: Platform, method: MethodDescriptor) -> None:
    for outcome in everywhere(platform, method, empty(method), ""):
        assert outcome.code in (grpc.StatusCode.UNAUTHENTICATED, 401)
        assert outcome.reason == "CREDENTIAL_MISSING"
    for outcome in everywhere(platform, method, empty(method), "mk_live_nothing"):
        assert outcome.code in (grpc.StatusCode.UNAUTHENTICATED, 401)
        assert outcome.reason == "CREDENTIAL_INVALID"


@named(INTERNAL)
def test_nobody_outside_calls_what_is_internal(platform: Platform, admin: Account, method: MethodDescriptor) -> None:
    assert method.full_name not in BINDINGS
    outcome = by_grpc(platform, method, empty(method), admin.api_key)
    assert outcome.code in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED)


@pytest.fixture(scope="module")
def admin(platform: Platform) -> Account:
    return platform.admin()


@pytest.fixture(scope="module")
def lacking(platform: Platform, admin: Account) -> Callable[[str], str]:
    """The secret of a key of the platform's administrator that may do all but one thing."""
    made: dict[str, str] = {}
    held = set(admin.organisations.GetOrganisation(org.GetOrganisationRequest()).organisation.scopes)

    def key(scope: str) -> str:
        assert scope in held, f"{scope} is nobody's"
        if scope not in made:
            request = auth_pb2.CreateApiKeyRequest(name=scope, scopes=sorted(held - {scope}))
            made[scope] = admin.auth.CreateApiKey(request).secret
        return made[scope]

    return key


@named([m for m in GUARDED if contracts.policy(m).scopes])
def test_every_scope_is_needed(platform: Platform, lacking: Callable[[str], str], method: MethodDescriptor) -> None:
    for scope in contracts.policy(method).scopes:
        for outcome in everywhere(platform, method, empty(method), lacking(scope)):
            assert outcome.code in (grpc.StatusCode.PERMISSION_DENIED, 403)
            assert outcome.reason == "SCOPE_MISSING"
            assert scope in outcome.said


@pytest.fixture(scope="module")
def victim(platform: Platform) -> Account:
    """The owner of an organisation."""
    return platform.organisation(platform.sign_up(auth_pb2.ROLE_PUBLISHER))


@pytest.fixture(scope="module")
def members(platform: Platform, victim: Account) -> dict[str, Account]:
    """One of each lower role, and a consumer."""
    made = {role: platform.join(victim, platform.sign_up(), role) for role in ROLES if role != "owner"}
    return {**made, "consumer": platform.session(platform.sign_up())}


@named(GUARDED)
def test_lower_roles_are_denied(platform: Platform, members: dict[str, Account], method: MethodDescriptor) -> None:
    policy = contracts.policy(method)
    for role, member in members.items():
        if role == "consumer":
            denied = bool(policy.roles) and "consumer" not in policy.roles
        else:
            denied = bool(set(policy.scopes) - ROLES[role]) or (bool(policy.roles) and "publisher" not in policy.roles)
        if denied:
            for outcome in everywhere(platform, method, empty(method), member.api_key):
                assert outcome.code in (grpc.StatusCode.PERMISSION_DENIED, 403), role
                assert outcome.reason in ("SCOPE_MISSING", "ROLE_MISSING")


def test_roles_hold_what_is_documented(victim: Account, members: dict[str, Account]) -> None:
    """So that the denials of the other tests are not those of who may do nothing."""
    request = org.GetOrganisationRequest()
    for role, member in {**members, "owner": victim}.items():
        if role != "consumer":
            held = set(member.organisations.GetOrganisation(request).organisation.scopes)
            assert held == ROLES[role] | {"account:write"}


# Another organisation

# Fields of requests that name something of an organisation, by what it is. `Request.field` before `field`.
NAMES = {
    "key_id": "key", "user_id": "user", "invitation_id": "invitation", "service_account_id": "service_account",
    "invoice_id": "invoice", "payment_id": "payment", "payment_method_id": "payment_method", "request_id": "call",
    "subscription_id": "subscription", "job_id": "job", "upload_id": "upload", "model": "model", "digest": "digest",
    "payout_id": "payout", "DeleteBudgetRequest.name": "budget", "DeleteRoleRequest.name": "role",
    "session_id": "session", "signing_key_id": "signing_key",
    "client_id": "oauth_client", "team_id": "team", "transfer_id": "transfer",
    "VerifySsoDomainRequest.domain": "sso_domain", "RemoveSsoDomainRequest.domain": "sso_domain",
    "SetSsoConnectionRequest.client_id": None,  # at the provider
    "identity_id": "identity", "passkey_id": "passkey", "export_id": "export", "collection_id": "collection",
    "endpoint_id": "endpoint", "delivery_id": "delivery", "fingerprint": "publisher_key",
}  # fmt: skip
# Texts that name nothing of an organisation's: what somebody calls, says or asks for.
TEXTS = {
    "alias", "category", "code", "currency", "current_password", "description", "display_name", "email", "etag",
    "filename", "framework", "handle", "homepage", "id", "license", "line_id", "meter", "name", "organisation",
    "password", "payment_method", "plan_id", "prompt", "reason", "release_notes", "return_url", "role", "summary",
    "tag_name", "task", "version",
    "provider", "redirect_uri", "code_challenge", "state", "identity_code", "code_verifier", "credential",
    "issuer", "client_id", "client_secret", "default_role", "domain",
    "username",  # the caller's own
    "user_code",  # of a device, which is nobody's yet
    "metadata", "checksum",  # of uploads: whatever their owner says of their bytes
    "board", "comment", "publisher", "title", "message", "terms_digest",
    "about", "website",
    "successor",  # a version that is published
    "review_id",  # anybody may see it; who may answer it is in tests/integration/marketplace
    "url", "event_type",
    "public_key", "attestations",  # a key, and what one signed, for the caller's own organisation
    "org_id",  # of SetDiscount and DeleteDiscount: any customer
}  # fmt: skip
INVENTED = {
    "model": "nobody/nothing", "digest": "sha256:" + "ab" * 32, "payment_method": "pm_none", "budget": "none",
    "role": "none-such", "sso_domain": "none.example",
    "publisher_key": "sha256:" + "ab" * 32,
}  # fmt: skip
# What requests need beside the name.
FILLED: dict[str, Any] = {
    "amount_nanos": USD, "discount_ppm": 1000, "filename": "m.onnx", "inputs": [], "limit_nanos": USD,
    "line_id": "il_1", "meter": "requests", "name": "x1", "period": budgets_pb2.BUDGET_PERIOD_DAILY,
    "organisation": "nobody", "reason": "r", "role": "viewer", "rating": 5, "title": "t",
    "collection_id": "col_00000000000000000000000000", "publisher": "nobody",
    "size_bytes": 10, "version": "1.0.0", "alias": "stable", "org_id": "org_00000000000000000000000000",
    "messages": [{"role": "user", "content": "x"}], "prompt": "x", "monthly_nanos": USD,
    "digest": "sha256:" + "cd" * 32,
    "PredictRequest.inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [[1, 2, 3, 4]]}],
    "EmbedRequest.inputs": ["x"], "QuoteRequest.units": {"requests": 1},
    "components": [{"meter": "requests", "nanos_per_million": 1000}],
    "algorithm": "SIGNATURE_ALGORITHM_HMAC_SHA256", "DeleteSigningKeyRequest.key_id": "key_00000000000000000000000000",
    "signing_key_id": "sgk_00000000000000000000000000",
    "AddTeamMemberRequest.user_id": "usr_00000000000000000000000000", "team_id": "tem_00000000000000000000000000",
    "RemoveTeamMemberRequest.user_id": "usr_00000000000000000000000000",
    "UpdateApiKeyRequest.key_id": "key_00000000000000000000000000",
    "service_account_id": "sac_00000000000000000000000000", "visibility": "VISIBILITY_PUBLIC",
}  # fmt: skip


_ALSO = ("components", "prompt", "filename", "units", "inputs")  # needed by some, by no rule


def _of(method: MethodDescriptor, field: FieldDescriptor, table: dict[str, Any]) -> Any:
    return table.get(f"{method.input_type.name}.{field.name}", table.get(field.name))


def _texts(method: MethodDescriptor) -> list[FieldDescriptor]:
    of_text = FieldDescriptor.TYPE_STRING
    return [f for f in method.input_type.fields if f.type == of_text and not f.is_repeated and f.name != "page_token"]


FOREIGN = [
    (method, field)
    for method in GUARDED
    if set(contracts.policy(method).roles) != {"admin"}
    for field in _texts(method)
    if _of(method, field, NAMES) not in (None, "payout", "identity", "passkey")  # they take days, a provider, a device
]


@named([m for m in GUARDED if set(contracts.policy(m).roles) != {"admin"}])
def test_it_is_known_what_requests_name(method: MethodDescriptor) -> None:
    for field in _texts(method):
        assert _of(method, field, NAMES) or field.name in TEXTS, f"does {field.full_name} name something of somebody's?"


@pytest.fixture(scope="module")
def theirs(platform: Platform, victim: Account, members: dict[str, Account]) -> dict[str, str]:
    """Something of the victim's organisation of each kind."""
    handle = victim.profile.organisation
    found = {"user": members["viewer"].profile.user_id}
    found["session"] = victim.sessions.ListSessions(sessions_pb2.ListSessionsRequest()).sessions[0].session_id
    found["key"] = victim.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="k")).api_key.key_id
    signing = keys_pb2.CreateSigningKeyRequest(key_id=found["key"], algorithm=auth_pb2.SIGNATURE_ALGORITHM_HMAC_SHA256)
    found["signing_key"] = victim.keys.CreateSigningKey(signing).signing_key.signing_key_id
    invite = org.CreateInvitationRequest(email="guest@example.com", role="viewer")
    found["invitation"] = victim.invitations.CreateInvitation(invite).invitation.invitation_id
    account = org.CreateServiceAccountRequest(name="ci", role="viewer")
    made = victim.service_accounts.CreateServiceAccount(account).service_account
    found["service_account"] = made.service_account_id
    tool = oauth_pb2.CreateOAuthClientRequest(name="tool")
    found["oauth_client"] = victim.oauth_clients.CreateOAuthClient(tool).client.client_id
    team = victim.teams.CreateTeam(team_pb2.CreateTeamRequest(name="everybody")).team
    found["team"] = team.team_id
    victim.teams.AddTeamMember(team_pb2.AddTeamMemberRequest(team_id=team.team_id, user_id=found["user"]))
    found["role"] = victim.organisations.SetRole(org.SetRoleRequest(name="auditor", scopes=["usage:read"])).role.name
    victim.top_up(10 * USD)
    budget = budgets_pb2.SetBudgetRequest(name="all", period=budgets_pb2.BUDGET_PERIOD_DAILY, limit_nanos=USD)
    found["budget"] = victim.budgets.SetBudget(budget).budget.name
    card = payments_pb2.AttachPaymentMethodRequest(payment_method="pm_card_visa", make_default=True)
    found["payment_method"] = victim.payments.AttachPaymentMethod(card).payment_method.payment_method_id
    paid = victim.payments.CreatePayment(payments_pb2.CreatePaymentRequest(amount_nanos=10 * USD))
    found["payment"] = paid.payment.payment_id
    found["subscription"], found["invoice"] = _subscribed(platform, victim)
    # What is published is everybody's to call; what is not is nobody else's business.
    published = platform.publish(victim, graphs.tiny(), price={"requests": 10**9})
    x = inference_pb2.Tensor(name="x", datatype="FP32", shape=[1, 4], raw=bytes(16))
    predict = inference_pb2.PredictRequest(model=published, inputs=[x])
    _, call = victim.inference.Predict.with_call(predict)
    found["call"] = dict(call.trailing_metadata())["mercat-request-id"]
    found["job"] = victim.jobs.CreateJob(inference_pb2.CreateJobRequest(predict=predict)).job.job_id
    draft = registry_pb2.CreateModelRequest(name="draft", summary="s", category="other", task="test", license="MIT")
    victim.registry.CreateModel(draft)
    found["model"] = f"{handle}/draft"
    found["digest"] = platform.upload(victim, graphs.addition())
    platform.validated(victim, found["model"], found["digest"])
    friend = platform.organisation(platform.sign_up(auth_pb2.ROLE_PUBLISHER)).profile.organisation
    domain = sso_pb2.AddSsoDomainRequest(domain=f"{handle}.example")
    found["sso_domain"] = victim.sso.AddSsoDomain(domain).domain.domain
    offer = transfer_pb2.TransferModelRequest(model=found["model"], organisation=friend)
    found["transfer"] = victim.transfers.TransferModel(offer).transfer.transfer_id
    public_key = attesting.written(Ed25519PrivateKey.generate().public_key())
    key = provenance_pb2.AddPublisherKeyRequest(name="k", public_key=public_key)
    found["publisher_key"] = victim.publisher_keys.AddPublisherKey(key).key.fingerprint
    hook = webhooks_pb2.CreateWebhookEndpointRequest(url="https://example.invalid/")
    found["endpoint"] = victim.webhooks.CreateWebhookEndpoint(hook).endpoint.endpoint_id
    test = webhooks_pb2.SendTestEventRequest(endpoint_id=found["endpoint"])
    found["delivery"] = victim.webhooks.SendTestEvent(test).delivery.delivery_id
    upload = storage_pb2.CreateUploadRequest(filename="m.onnx", size_bytes=10, digest="sha256:" + "ef" * 32)
    collect = collections_pb2.CreateCollectionRequest(title="kept")
    found["collection"] = victim.collections.CreateCollection(collect).collection.collection_id
    found["upload"] = victim.storage.CreateUpload(upload).upload.upload_id
    found["export"] = victim.privacy.CreateExport(privacy_pb2.CreateExportRequest()).export.export_id
    _until_recorded(victim, found["call"])
    return found


def _subscribed(platform: Platform, person: Account) -> tuple[str, str]:
    """A subscription to somebody's model, and the invoice of it."""
    vendor = platform.publisher()
    model = platform.publish(vendor, graphs.tiny())
    vendor.plans.SetModelOffer(plans_pb2.SetModelOfferRequest(model=model, monthly_nanos=USD))
    person.plans.SubscribeToModel(plans_pb2.SubscribeToModelRequest(model=model))
    subscribed = person.plans.GetSubscription(plans_pb2.GetSubscriptionRequest()).models
    invoices = person.invoices.ListInvoices(invoices_pb2.ListInvoicesRequest()).invoices
    return subscribed[0].subscription_id, invoices[0].invoice_id


def _until_recorded(person: Account, request_id: str) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            person.usage.GetUsageRecord(usage_pb2.GetUsageRecordRequest(request_id=request_id))
        except grpc.RpcError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(request_id)


@pytest.fixture(scope="module")
def stranger(platform: Platform) -> Account:
    """The owner of another organisation, who has a model, credit and a card of their own."""
    made = platform.organisation(platform.sign_up(auth_pb2.ROLE_PUBLISHER))
    made.top_up(10 * USD)
    draft = registry_pb2.CreateModelRequest(name="own", summary="s", category="other", task="test", license="MIT")
    made.registry.CreateModel(draft)
    return made


def _request(method: MethodDescriptor, field: FieldDescriptor, name: str, stranger: Account) -> Message:
    """A request of the stranger's that names something in one field, and is otherwise their own."""
    given: dict[str, Any] = {field.name: name}
    for other in method.input_type.fields:
        rule = other.GetOptions().Extensions[rule_pb2.rule]
        if other.name not in given and (rule.required or other.name in _ALSO):
            if other.name == "model":
                given["model"] = f"{stranger.profile.organisation}/own"
            elif (value := _of(method, other, FILLED)) is not None:
                given[other.name] = value
    return json_format.ParseDict(given, message_factory.GetMessageClass(method.input_type)())


@pytest.mark.parametrize(("method", "field"), FOREIGN, ids=lambda d: d.full_name.removeprefix("mercat."))
def test_what_is_of_another_organisation_is_as_if_it_were_not(
    platform: Platform, theirs: dict[str, str], stranger: Account, method: MethodDescriptor, field: FieldDescriptor
) -> None:
    kind = _of(method, field, NAMES)
    real = theirs[kind]
    invented = INVENTED.get(kind) or re.sub(r"_.*", "_" + "0" * 26, real)
    asked = [_request(method, field, name, stranger) for name in (real, invented)]
    pairs = zip(*(everywhere(platform, method, one, stranger.api_key) for one in asked), strict=True)
    for foreign, nothing in pairs:
        assert foreign.reason != "INVALID_FIELDS", foreign.said
        assert foreign.without(real, invented) == nothing.without(real, invented)


def test_theirs_is_still_theirs(platform: Platform, theirs: dict[str, str], victim: Account, members: Any) -> None:
    """After all attempts of the test before: what was named is there, as it was."""
    keys = victim.service_accounts.ListOrganisationKeys(org.ListOrganisationKeysRequest()).api_keys
    assert {k.key_id: k.is_active for k in keys}[theirs["key"]]
    listed = victim.organisations.ListMembers(org.ListMembersRequest()).members
    assert {m.user_id: m.role for m in listed}[theirs["user"]] == "viewer"
    assert victim.invitations.ListInvitations(org.ListInvitationsRequest()).invitations
    assert victim.service_accounts.ListServiceAccounts(org.ListServiceAccountsRequest()).service_accounts
    assert victim.oauth_clients.ListOAuthClients(oauth_pb2.ListOAuthClientsRequest()).clients
    assert [d.domain for d in victim.sso.ListSsoDomains(sso_pb2.ListSsoDomainsRequest()).domains] == [
        theirs["sso_domain"]
    ]
    assert [t.member_count for t in victim.teams.ListTeams(team_pb2.ListTeamsRequest()).teams] == [1]
    hooks = victim.webhooks.ListWebhookEndpoints(webhooks_pb2.ListWebhookEndpointsRequest()).endpoints
    assert [h.endpoint_id for h in hooks] == [theirs["endpoint"]]
    assert victim.budgets.ListBudgets(budgets_pb2.ListBudgetsRequest()).budgets
    assert victim.payments.ListPaymentMethods(payments_pb2.ListPaymentMethodsRequest()).payment_methods
    transfers = victim.transfers.ListModelTransfers(transfer_pb2.ListModelTransfersRequest()).transfers
    assert [t.transfer_id for t in transfers] == [theirs["transfer"]]
    assert victim.registry.GetModel(registry_pb2.GetModelRequest(model=theirs["model"])).model
    signing = victim.publisher_keys.ListPublisherKeys(
        provenance_pb2.ListPublisherKeysRequest(publisher=victim.profile.organisation)
    ).keys
    assert [(k.fingerprint, k.HasField("revoked_at")) for k in signing] == [(theirs["publisher_key"], False)]
    kept = victim.collections.ListCollections(collections_pb2.ListCollectionsRequest()).collections
    assert [c.collection_id for c in kept] == [theirs["collection"]]
    assert victim.billing.GetWallet(billing_pb2.GetWalletRequest()).wallet.org_id == victim.profile.org_id


# A private model

Path = tuple[FieldDescriptor, ...]


def _naming_models(message: Descriptor, above: Path = ()) -> Iterator[Path]:
    """The fields of a request that name models, also those inside its messages."""
    for field in message.fields:
        if field.name in ("model", "models") and field.type == FieldDescriptor.TYPE_STRING:
            yield (*above, field)
            continue
        inside = field.message_type
        if inside is not None and not inside.GetOptions().map_entry and inside not in [f.message_type for f in above]:
            yield from _naming_models(inside, (*above, field))


NAMING = [
    (method, path)
    for method in METHODS
    if contracts.policy(method).access != policy_pb2.ACCESS_INTERNAL
    if set(contracts.policy(method).roles) != {"admin"}
    for path in _naming_models(method.input_type)
]


def _filled(method: MethodDescriptor, message: Descriptor, path: Path, name: str) -> dict[str, Any]:
    """A request in which the fields of `path` lead to `name`, with what it needs beside that."""
    made: dict[str, Any] = {}
    for field in message.fields:
        rule = field.GetOptions().Extensions[rule_pb2.rule]
        if field is path[0]:
            value = name if len(path) == 1 else _filled(method, field.message_type, path[1:], name)
            made[field.name] = [value] if field.is_repeated else value
            continue
        value = FILLED.get(f"{message.name}.{field.name}", FILLED.get(field.name))
        if value is not None and (rule.required or field.name in _ALSO):
            made[field.name] = value
    if made.get("models") and message.name == "CompareModelsRequest":  # of two at least
        made["models"].append(PUBLISHED)
    return made


PUBLISHED = "mercat/magika"  # of the demo


@pytest.fixture(scope="module")
def private(platform: Platform, victim: Account) -> registry_pb2.Model:
    """A model that everybody could call, and that its organisation alone may know of now."""
    model = platform.publish(victim, graphs.tiny(), price={"requests": 10**9})
    listing = marketplace_pb2.GetListingRequest(model=model)
    until(lambda: _outcome(lambda: victim.marketplace.GetListing(listing)) == "")
    request = access_pb2.SetModelVisibilityRequest(model=model, visibility=visibility_pb2.VISIBILITY_PRIVATE)
    made = victim.access.SetModelVisibility(request).model
    until(lambda: _outcome(lambda: victim.marketplace.GetListing(listing)) == "MODEL_NOT_FOUND")
    return made  # type: ignore[no-any-return]


def _outcome(call: Callable[[], object]) -> str:
    """The reason of its failure; empty when it did not fail."""
    try:
        call()
    except grpc.RpcError as e:
        return from_rpc_error(e).reason
    return ""


@pytest.mark.parametrize(
    ("method", "path"), NAMING,
    ids=lambda d: ".".join(f.name for f in d) if isinstance(d, tuple) else d.full_name.removeprefix("mercat."),
)  # fmt: skip
def test_a_private_model_is_as_if_it_were_not(
    platform: Platform, private: registry_pb2.Model, stranger: Account, method: MethodDescriptor, path: Path
) -> None:
    invented = private.model[:-4] + "none"
    who = [stranger.api_key, ""] if contracts.policy(method).access == policy_pb2.ACCESS_PUBLIC else [stranger.api_key]
    for credential in who:
        made = message_factory.GetMessageClass(method.input_type)
        asked = [json_format.ParseDict(_filled(method, method.input_type, path, n), made())
                 for n in (private.model, invented)]  # fmt: skip
        pairs = zip(*(everywhere(platform, method, one, credential) for one in asked), strict=True)
        for real, nothing in pairs:
            assert real.reason != "INVALID_FIELDS", real.said
            assert private.model_id not in real.said
            assert real.without(private.model, invented) == nothing.without(private.model, invented)

"""Organisations as their members meet them: joining, roles, leaving, and who calls in an organisation's name."""

import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from mercat.auth.v1 import auth_pb2
from mercat.auth.v1 import organisation_pb2 as pb
from mercat.billing.v1 import billing_pb2, plans_pb2
from mercat.inference.v1 import inference_pb2
from mercat.usage.v1 import usage_pb2

from services.common.errors import from_rpc_error
from tests import graphs
from tests.expect import fails, until
from tests.platform import PASSWORD, USD, Account, Platform

ME = auth_pb2.GetProfileRequest()
HERE = pb.GetOrganisationRequest()


def refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except grpc.RpcError as e:
        return e.code() is grpc.StatusCode.UNAUTHENTICATED
    return False


@pytest.fixture
def owner(platform: Platform) -> Account:
    """Signed in for an organisation of their own making."""
    return platform.organisation(platform.sign_up())


@pytest.fixture
def member(platform: Platform, owner: Account) -> Account:
    return platform.join(owner, platform.sign_up(), "developer")


def key_of(platform: Platform, person: Account) -> tuple[str, Account]:
    made = person.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="k"))
    return made.api_key.key_id, Account(platform, made.secret)


def test_who_makes_an_organisation_owns_it_and_it_pays_for_itself(platform: Platform) -> None:
    person = platform.sign_up(credit=USD)
    owner = platform.organisation(person)
    here = owner.organisations.GetOrganisation(HERE).organisation
    assert (here.member_role, here.personal) == ("owner", False)
    assert {"members:write", "organisation:own", "billing:write", "models:write"} <= set(here.scopes)
    listed = owner.organisations.ListOrganisations(pb.ListOrganisationsRequest()).organisations
    assert {o.handle for o in listed} == {here.handle, person.profile.username}
    assert [o.handle for o in listed if o.scopes] == [here.handle]
    assert owner.balance() == 0
    owner.top_up(3 * USD)
    assert (owner.balance(), person.balance()) == (3 * USD, USD)
    plan = plans_pb2.GetSubscriptionRequest()

    def kept() -> bool:  # one that is not kept has another id each time
        found = [owner.plans.GetSubscription(plan).subscription for _ in range(2)]
        return found[0].plan_id == "pay_as_you_go" and found[0].subscription_id == found[1].subscription_id

    until(kept)


def test_a_handle_is_a_persons_or_an_organisations(platform: Platform, owner: Account) -> None:
    for handle in (owner.profile.username, owner.profile.organisation):
        error = fails(owner.organisations.CreateOrganisation, pb.CreateOrganisationRequest(handle=handle))
        assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "HANDLE_TAKEN")
    request = auth_pb2.SignUpRequest(
        email=f"{secrets.token_hex(6)}@example.com", username=owner.profile.organisation, password=PASSWORD
    )
    assert [v.field for v in fails(platform.anonymous.auth.SignUp, request).violations] == ["username"]
    for handle in ("admin", "Acme", "-a", ""):
        error = fails(owner.organisations.CreateOrganisation, pb.CreateOrganisationRequest(handle=handle))
        assert [v.field for v in error.violations] == ["handle"]


def test_a_session_is_for_one_organisation_and_a_key_for_the_one_it_was_made_in(platform: Platform) -> None:
    person = platform.sign_up()
    there = platform.organisation(person)
    at_home = platform.session(person)
    assert there.profile.user_id == at_home.profile.user_id
    assert there.profile.org_id != at_home.profile.org_id == person.profile.org_id
    key_id, key = key_of(platform, there)
    assert key.auth.GetProfile(ME).profile.organisation == there.profile.organisation
    assert [o.handle for o in key.organisations.ListOrganisations(pb.ListOrganisationsRequest()).organisations] == [
        there.profile.organisation
    ]
    listing = auth_pb2.ListApiKeysRequest()
    assert [k.key_id for k in there.auth.ListApiKeys(listing).api_keys] == [key_id]
    assert key_id not in {k.key_id for k in at_home.auth.ListApiKeys(listing).api_keys}
    error = fails(at_home.auth.RevokeApiKey, auth_pb2.RevokeApiKeyRequest(key_id=key_id))
    assert error.reason == "API_KEY_NOT_FOUND"


def test_only_members_switch_and_a_refusal_spends_no_token(platform: Platform, owner: Account) -> None:
    person = platform.sign_up()
    session = platform.anonymous.auth.SignIn(auth_pb2.SignInRequest(email=person.email, password=PASSWORD)).session
    refresh = platform.anonymous.auth.RefreshSession

    def switch(handle: str) -> auth_pb2.RefreshSessionRequest:
        return auth_pb2.RefreshSessionRequest(refresh_token=session.refresh_token, organisation=handle)

    real, invented = (fails(refresh, switch(handle)) for handle in (owner.profile.organisation, "no-such-one"))
    assert real.code is invented.code is grpc.StatusCode.NOT_FOUND
    assert real.message.replace(owner.profile.organisation, "no-such-one") == invented.message
    assert refresh(switch(person.profile.username)).session.access_token


def test_a_renewed_session_stays_in_its_organisation(platform: Platform, owner: Account) -> None:
    session = platform.anonymous.auth.SignIn(auth_pb2.SignInRequest(email=owner.email, password=PASSWORD)).session
    for handle in (owner.profile.organisation, "", ""):
        request = auth_pb2.RefreshSessionRequest(refresh_token=session.refresh_token, organisation=handle)
        session = platform.anonymous.auth.RefreshSession(request).session
        assert Account(platform, session.access_token).auth.GetProfile(ME).profile.org_id == owner.profile.org_id


def test_an_invitation_works_once_for_its_address(platform: Platform, owner: Account) -> None:
    guest, other = platform.sign_up(), platform.sign_up()
    made = owner.invitations.CreateInvitation(pb.CreateInvitationRequest(email=guest.email.upper(), role="billing"))
    accept = pb.AcceptInvitationRequest(code=made.code)
    wrong, unknown = (
        fails(other.invitations.AcceptInvitation, pb.AcceptInvitationRequest(code=code))
        for code in (made.code, "mi_invented")
    )
    assert (wrong.code, wrong.reason, wrong.message) == (unknown.code, unknown.reason, unknown.message)
    session = platform.session(guest)

    def attempt(_: int) -> str:
        try:
            return str(session.invitations.AcceptInvitation(accept).organisation.member_role)
        except grpc.RpcError as e:
            return from_rpc_error(e).reason

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(attempt, range(8)))
    assert sorted(answers) == ["INVITATION_NOT_FOUND"] * 7 + ["billing"]
    here = platform.session(guest, owner.profile.organisation).organisations.GetOrganisation(HERE).organisation
    assert set(here.scopes) == {
        "account:write", "billing:read", "billing:write", "keys:read", "members:read", "models:read", "usage:read",
    }  # fmt: skip
    again = pb.CreateInvitationRequest(email=guest.email, role="viewer")
    assert fails(owner.invitations.CreateInvitation, again).reason == "ALREADY_A_MEMBER"


def test_withdrawn_replaced_and_expired_invitations_open_nothing(platform: Platform, owner: Account) -> None:
    guest = platform.sign_up()

    def invite(**options: Any) -> pb.CreateInvitationResponse:
        request = pb.CreateInvitationRequest(email=guest.email, role="viewer", **options)
        return owner.invitations.CreateInvitation(request)  # type: ignore[no-any-return]

    replaced, expired = invite(), invite(expires_at=Timestamp(seconds=int(time.time()) + 2))
    time.sleep(2)
    assert not owner.invitations.ListInvitations(pb.ListInvitationsRequest()).invitations
    withdrawn = invite()
    listed = owner.invitations.ListInvitations(pb.ListInvitationsRequest()).invitations
    assert [i.invitation_id for i in listed] == [withdrawn.invitation.invitation_id]
    revoke = pb.RevokeInvitationRequest(invitation_id=withdrawn.invitation.invitation_id)
    stranger = platform.organisation(platform.sign_up())
    assert fails(stranger.invitations.RevokeInvitation, revoke).reason == "INVITATION_NOT_FOUND"
    owner.invitations.RevokeInvitation(revoke)
    for made in (replaced, expired, withdrawn):
        error = fails(guest.invitations.AcceptInvitation, pb.AcceptInvitationRequest(code=made.code))
        assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "INVITATION_NOT_FOUND")
    for seconds in (time.time() - 1, time.time() + 31 * 86400):
        request = pb.CreateInvitationRequest(
            email=guest.email, role="viewer", expires_at=Timestamp(seconds=int(seconds))
        )
        assert [v.field for v in fails(owner.invitations.CreateInvitation, request).violations] == ["expires_at"]


def test_who_is_removed_is_out_everywhere_within_seconds_and_for_good(
    platform: Platform, owner: Account, member: Account
) -> None:
    _, key = key_of(platform, member)
    predict = inference_pb2.PredictRequest(model="nobody/nothing")
    for account in (member, key):
        account.auth.GetProfile(ME)
        assert fails(account.inference.Predict, predict).code is not grpc.StatusCode.UNAUTHENTICATED
    session = platform.anonymous.auth.SignIn(auth_pb2.SignInRequest(email=member.email, password=PASSWORD)).session
    request = auth_pb2.RefreshSessionRequest(
        refresh_token=session.refresh_token, organisation=owner.profile.organisation
    )
    session = platform.anonymous.auth.RefreshSession(request).session
    owner.organisations.RemoveMember(pb.RemoveMemberRequest(user_id=member.profile.user_id))
    for account in (member, key):
        until(lambda a=account: refused(lambda: a.auth.GetProfile(ME)))  # type: ignore[misc]
        until(lambda a=account: refused(lambda: a.inference.Predict(predict)))  # type: ignore[misc]
    request = auth_pb2.RefreshSessionRequest(refresh_token=session.refresh_token)
    assert fails(platform.anonymous.auth.RefreshSession, request).reason == "NOT_A_MEMBER"
    request.organisation = member.profile.username  # their own is still theirs
    platform.anonymous.auth.RefreshSession(request)
    person = Account(platform, "", email=member.email)
    platform.join(owner, person, "developer")
    time.sleep(0.5)
    assert refused(lambda: key.auth.GetProfile(ME))


def test_a_stream_ends_with_the_membership(platform: Platform, owner: Account, member: Account) -> None:
    """What the organisation calls after that, who was removed does not hear."""
    heard: list[Any] = []
    stream = member.usage.StreamUsage(usage_pb2.StreamUsageRequest(), timeout=60)
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(lambda: [heard.append(m) for m in stream])  # type: ignore[func-returns-value]
        model = platform.publish(owner, graphs.tiny())
        x = inference_pb2.Tensor(name="x", datatype="FP32", shape=[1, 4], raw=bytes(16))
        request = inference_pb2.PredictRequest(model=model, inputs=[x])
        owner.inference.Predict(request)
        until(lambda: len(heard) == 1)
        owner.organisations.RemoveMember(pb.RemoveMemberRequest(user_id=member.profile.user_id))
        until(lambda: refused(lambda: member.auth.GetProfile(ME)))
        owner.inference.Predict(request)
        with pytest.raises(grpc.RpcError) as caught:
            ended.result(20)
    assert from_rpc_error(caught.value).reason == "CREDENTIAL_INVALID"
    assert len(heard) == 1


def test_an_organisation_keeps_an_owner(platform: Platform, owner: Account) -> None:
    leave = pb.LeaveOrganisationRequest()
    own = owner.profile.user_id
    for call, request in (
        (owner.organisations.LeaveOrganisation, leave),
        (owner.organisations.RemoveMember, pb.RemoveMemberRequest(user_id=own)),
        (owner.organisations.SetMemberRole, pb.SetMemberRoleRequest(user_id=own, role="viewer")),
    ):
        error = fails(call, request)
        assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "LAST_OWNER")
    other = platform.join(owner, platform.sign_up(), "owner")

    def attempt(person: Account) -> str:
        try:
            person.organisations.LeaveOrganisation(leave)
        except grpc.RpcError as e:
            return from_rpc_error(e).reason
        return "left"

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(attempt, (owner, other))) == ["LAST_OWNER", "left"]


def test_ownership_is_transferred_as_a_whole(platform: Platform, owner: Account, member: Account) -> None:
    transfer = pb.TransferOwnershipRequest(user_id=member.profile.user_id)
    assert fails(member.organisations.TransferOwnership, transfer).reason == "SCOPE_MISSING"
    assert owner.organisations.TransferOwnership(transfer).member.role == "owner"
    roles = {
        m.user_id: m.role for m in member.organisations.ListMembers(pb.ListMembersRequest()).members
    }  # fmt: skip
    assert roles == {member.profile.user_id: "owner", owner.profile.user_id: "admin"}
    until(lambda: "organisation:own" in member.organisations.GetOrganisation(HERE).organisation.scopes)
    until(lambda: "organisation:own" not in owner.organisations.GetOrganisation(HERE).organisation.scopes)
    unknown = pb.TransferOwnershipRequest(user_id="usr_00000000000000000000000000")
    assert fails(member.organisations.TransferOwnership, unknown).reason == "MEMBER_NOT_FOUND"


def test_nobody_gives_or_takes_more_than_they_hold(platform: Platform, owner: Account, member: Account) -> None:
    admin = platform.join(owner, platform.sign_up(), "admin")
    own, theirs = owner.profile.user_id, member.profile.user_id
    for call, request in (
        (admin.organisations.SetMemberRole, pb.SetMemberRoleRequest(user_id=theirs, role="owner")),
        (admin.organisations.SetMemberRole, pb.SetMemberRoleRequest(user_id=own, role="viewer")),
        (admin.organisations.RemoveMember, pb.RemoveMemberRequest(user_id=own)),
        (admin.invitations.CreateInvitation, pb.CreateInvitationRequest(email="a@example.com", role="owner")),
        (admin.service_accounts.CreateServiceAccount, pb.CreateServiceAccountRequest(name="s", role="owner")),
    ):
        error = fails(call, request)
        assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")
        assert error.metadata["scopes"] == "organisation:own"
    # A key of the admin's that may only manage members gives no more than that either.
    secret = admin.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="k", scopes=["members:write"])).secret
    narrow = Account(platform, secret)
    request = pb.SetMemberRoleRequest(user_id=theirs, role="viewer")
    assert fails(narrow.organisations.SetMemberRole, request).reason == "SCOPE_MISSING"
    for role in ("king", "", "Owner"):
        error = fails(admin.organisations.SetMemberRole, pb.SetMemberRoleRequest(user_id=theirs, role=role))
        assert [v.field for v in error.violations] == ["role"]


def test_another_role_is_felt_within_seconds(platform: Platform, owner: Account, member: Account) -> None:
    create = auth_pb2.CreateApiKeyRequest(name="k", scopes=["usage:read"])
    member.auth.CreateApiKey(create)
    request = pb.SetMemberRoleRequest(user_id=member.profile.user_id, role="viewer")
    assert owner.organisations.SetMemberRole(request).member.role == "viewer"
    until(lambda: "keys:write" not in member.organisations.GetOrganisation(HERE).organisation.scopes)
    assert fails(member.auth.CreateApiKey, create).reason == "SCOPE_MISSING"


def test_roles_of_an_organisations_own(platform: Platform, owner: Account, member: Account) -> None:
    role = owner.organisations.SetRole(pb.SetRoleRequest(name="auditor", scopes=["audit:read", "usage:read"])).role
    assert list(role.scopes) == ["audit:read", "usage:read"]
    user = member.profile.user_id
    owner.organisations.SetMemberRole(pb.SetMemberRoleRequest(user_id=user, role="auditor"))

    def scopes() -> set[str]:
        return set(member.organisations.GetOrganisation(HERE).organisation.scopes)

    until(lambda: scopes() == {"account:write", "audit:read", "usage:read"})
    owner.organisations.SetRole(pb.SetRoleRequest(name="auditor", scopes=["usage:read"]))
    until(lambda: scopes() == {"account:write", "usage:read"})
    delete = pb.DeleteRoleRequest(name="auditor")
    assert fails(owner.organisations.DeleteRole, delete).reason == "ROLE_IN_USE"
    owner.organisations.SetMemberRole(pb.SetMemberRoleRequest(user_id=user, role="admin"))
    until(lambda: "members:write" in scopes())
    assert fails(member.organisations.SetRole, pb.SetRoleRequest(name="boss", scopes=["organisation:own"])).reason == (
        "SCOPE_MISSING"
    )
    for name, scope in (("owner", "usage:read"), ("x1", "models:review"), ("x1", "account:write")):
        error = fails(owner.organisations.SetRole, pb.SetRoleRequest(name=name, scopes=[scope]))
        assert len(error.violations) == 1
    owner.organisations.DeleteRole(delete)
    listed = owner.organisations.ListRoles(pb.ListRolesRequest()).roles
    assert [r.name for r in listed] == ["owner", "admin", "billing", "developer", "viewer"]


def test_a_service_account_calls_in_its_own_name(platform: Platform, owner: Account, member: Account) -> None:
    made = owner.service_accounts.CreateServiceAccount(pb.CreateServiceAccountRequest(name="ci", role="developer"))
    account = made.service_account
    request = pb.CreateOrganisationKeyRequest(name="k", service_account_id=account.service_account_id)
    assert fails(member.service_accounts.CreateOrganisationKey, request).reason == "SCOPE_MISSING"
    key = owner.service_accounts.CreateOrganisationKey(request)
    assert (key.api_key.owner_id, key.api_key.created_by) == (account.service_account_id, owner.profile.user_id)
    program = Account(platform, key.secret)
    profile = program.auth.GetProfile(ME).profile
    assert (profile.user_id, profile.org_id) == (account.service_account_id, owner.profile.org_id)
    assert "account:write" not in key.api_key.scopes
    assert "billing:read" not in key.api_key.scopes
    assert [o.org_id for o in program.organisations.ListOrganisations(pb.ListOrganisationsRequest()).organisations] == [
        owner.profile.org_id
    ]
    wider = pb.CreateOrganisationKeyRequest(
        name="k", service_account_id=account.service_account_id, scopes=["billing:read"]
    )
    assert fails(owner.service_accounts.CreateOrganisationKey, wider).reason == "SCOPE_MISSING"
    name = pb.CreateServiceAccountRequest(name="ci", role="viewer")
    assert fails(owner.service_accounts.CreateServiceAccount, name).reason == "SERVICE_ACCOUNT_EXISTS"
    delete = pb.DeleteServiceAccountRequest(service_account_id=account.service_account_id)
    stranger = platform.organisation(platform.sign_up())
    assert fails(stranger.service_accounts.DeleteServiceAccount, delete).reason == "SERVICE_ACCOUNT_NOT_FOUND"
    owner.service_accounts.DeleteServiceAccount(delete)
    until(lambda: refused(lambda: program.auth.GetProfile(ME)))
    assert not owner.service_accounts.ListServiceAccounts(pb.ListServiceAccountsRequest()).service_accounts


def test_a_shared_key_outlives_who_made_it(platform: Platform, owner: Account) -> None:
    admin = platform.join(owner, platform.sign_up(), "admin")
    made = admin.service_accounts.CreateOrganisationKey(pb.CreateOrganisationKeyRequest(name="shared"))
    shared = Account(platform, made.secret)
    assert shared.auth.GetProfile(ME).profile.user_id == owner.profile.org_id
    assert "organisation:own" not in made.api_key.scopes
    own_id, own = key_of(platform, admin)
    owner.organisations.RemoveMember(pb.RemoveMemberRequest(user_id=admin.profile.user_id))
    until(lambda: refused(lambda: own.auth.GetProfile(ME)))
    shared.auth.GetProfile(ME)
    listed = owner.service_accounts.ListOrganisationKeys(pb.ListOrganisationKeysRequest()).api_keys
    assert {k.key_id: k.is_active for k in listed} == {made.api_key.key_id: True, own_id: False}
    owner.service_accounts.RevokeOrganisationKey(pb.RevokeOrganisationKeyRequest(key_id=made.api_key.key_id))
    until(lambda: refused(lambda: shared.auth.GetProfile(ME)))


def test_a_personal_organisation_has_one_member(platform: Platform) -> None:
    person = platform.sign_up()
    for call, request in (
        (person.invitations.CreateInvitation, pb.CreateInvitationRequest(email="a@example.com", role="viewer")),
        (person.organisations.LeaveOrganisation, pb.LeaveOrganisationRequest()),
        (person.organisations.RemoveMember, pb.RemoveMemberRequest(user_id=person.profile.user_id)),
        (person.organisations.SetRole, pb.SetRoleRequest(name="my-own", scopes=["usage:read"])),
        (person.organisations.TransferOwnership, pb.TransferOwnershipRequest(user_id="usr_x")),
    ):
        error = fails(call, request)
        assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PERSONAL_ORGANISATION")


def test_a_service_account_has_no_more_than_the_person_it_is_of(platform: Platform) -> None:
    consumer = platform.sign_up()
    request = pb.CreateServiceAccountRequest(name="ci", role="viewer")
    account = consumer.service_accounts.CreateServiceAccount(request).service_account
    assert "models:write" not in consumer.organisations.GetOrganisation(HERE).organisation.scopes
    developer = pb.CreateServiceAccountRequest(name="dev", role="developer")
    assert fails(consumer.service_accounts.CreateServiceAccount, developer).reason == "SCOPE_MISSING"
    key = consumer.service_accounts.CreateOrganisationKey(
        pb.CreateOrganisationKeyRequest(name="k", service_account_id=account.service_account_id)
    )
    assert set(key.api_key.scopes) == {"keys:read", "members:read", "models:read", "usage:read"}


def test_members_idempotency_keys_are_their_own(owner: Account, platform: Platform) -> None:
    other = platform.join(owner, platform.sign_up(), "admin")
    request, once = auth_pb2.CreateApiKeyRequest(name="once"), [("idempotency-key", secrets.token_hex(8))]
    assert owner.auth.CreateApiKey(request, metadata=once) != other.auth.CreateApiKey(request, metadata=once)


def test_an_etag_guards_the_name(owner: Account) -> None:
    before = owner.organisations.GetOrganisation(HERE).organisation
    request = pb.UpdateOrganisationRequest(display_name="Acme ✓", etag=before.etag)
    assert owner.organisations.UpdateOrganisation(request).organisation.display_name == "Acme ✓"
    assert fails(owner.organisations.UpdateOrganisation, request).reason == "ETAG_MISMATCH"


def test_an_organisation_publishes_calls_and_pays(platform: Platform, owner: Account, member: Account) -> None:
    """One bill, and usage by who called."""
    model = platform.publish(member, graphs.tiny(), price={"requests": 1_000_000 * 10**6})
    assert model.startswith(owner.profile.organisation + "/")
    buyer = platform.organisation(platform.sign_up())
    buyer.top_up(USD)
    colleague = platform.join(buyer, platform.sign_up(), "developer")
    made = buyer.service_accounts.CreateOrganisationKey(pb.CreateOrganisationKeyRequest(name="shared"))
    x = inference_pb2.Tensor(name="x", datatype="FP32", shape=[1, 4], raw=bytes(16))
    request = inference_pb2.PredictRequest(model=model, inputs=[x])
    for caller, calls in ((buyer, 1), (colleague, 2), (Account(platform, made.secret), 3)):
        for _ in range(calls):
            caller.inference.Predict(request)
    query = usage_pb2.QueryUsageRequest(meter="requests", group_by=[usage_pb2.USAGE_DIMENSION_MEMBER])

    def counts() -> dict[str, int]:
        return {row.user_id: row.value for row in buyer.usage.QueryUsage(query).points}

    expected = {buyer.profile.user_id: 1, colleague.profile.user_id: 2, buyer.profile.org_id: 3}
    until(lambda: counts() == expected, 10)
    until(lambda: owner.earned() > 0, 10)
    assert colleague.auth.GetProfile(ME).profile.org_id == buyer.profile.org_id
    assert fails(colleague.billing.GetWallet, billing_pb2.GetWalletRequest()).reason == "SCOPE_MISSING"
    assert platform.admin().check_ledger().discrepancies == []

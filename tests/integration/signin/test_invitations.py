"""Invitations by mail, who may make and accept them, and what asks for the second factor again in organisations."""

import re
from secrets import token_hex

from mercat.auth.v1 import auth_pb2, signin_pb2
from mercat.auth.v1 import organisation_pb2 as org

from tests.expect import fails
from tests.integration.signin.people import Mailbox, Member, code_of, confirm, ends, enrolled, member, move
from tests.platform import Account, Platform

_CODE = re.compile(r"mi_[A-Za-z0-9_-]+")


def verified(platform: Platform, mailbox: Mailbox) -> Member:
    person = member(platform)
    code = mailbox.code(person.email, subject="Confirm")
    person.passwords.VerifyEmail(signin_pb2.VerifyEmailRequest(code=code))
    return person


def invite(owner: Account, email: str) -> org.CreateInvitationResponse:
    request = org.CreateInvitationRequest(email=email, role="viewer")
    return owner.invitations.CreateInvitation(request)  # type: ignore[no-any-return]


def test_an_invitation_comes_by_mail_and_lets_a_verified_address_in(platform: Platform, mailbox: Mailbox) -> None:
    host = verified(platform, mailbox)
    owner = platform.organisation(host.account)
    guest = member(platform)
    made = invite(owner, guest.email)
    (mail,) = mailbox.to(guest.email, subject=owner.profile.organisation)
    for part in ("plain", "html"):
        text = mail.get_body((part,)).get_content()  # type: ignore[union-attr]
        assert _CODE.findall(text)[0] == made.code
        assert host.profile.username in text
        assert "viewer" in text
    accept = org.AcceptInvitationRequest(code=made.code)
    assert fails(guest.invitations.AcceptInvitation, accept).reason == "EMAIL_UNVERIFIED"
    code = mailbox.code(guest.email, subject="Confirm")
    guest.passwords.VerifyEmail(signin_pb2.VerifyEmailRequest(code=code))
    joined = guest.invitations.AcceptInvitation(accept).organisation
    assert joined.handle == owner.profile.organisation


def test_who_has_no_verified_address_writes_to_nobody(platform: Platform) -> None:
    owner = platform.organisation(platform.sign_up())
    request = org.CreateInvitationRequest(email="guest@example.com", role="viewer")
    assert fails(owner.invitations.CreateInvitation, request).reason == "EMAIL_UNVERIFIED"


def test_no_mailbox_is_filled_by_invitations(platform: Platform, mailbox: Mailbox) -> None:
    hosts = [platform.organisation(verified(platform, mailbox).account) for _ in range(2)]
    address = f"{token_hex(6)}@example.com"
    for at in range(5):
        invite(hosts[at % 2], address)
    request = org.CreateInvitationRequest(email=address.upper(), role="viewer")
    error = fails(hosts[1].invitations.CreateInvitation, request)
    assert error.reason == "MAIL_LIMITED"
    assert 3500 < (error.retry_after or 0) <= 3600
    invite(hosts[1], f"{token_hex(6)}@example.com")
    assert len(mailbox.to(address, 5)) == 5
    move(platform, hours=1, seconds=1)
    hosts[0] = platform.session(hosts[0], hosts[0].profile.organisation)
    invite(hosts[0], address)


def test_roles_ownership_and_shared_keys_ask_for_the_second_factor_again(platform: Platform, mailbox: Mailbox) -> None:
    person, secret, _ = enrolled(platform)
    handle = f"o{token_hex(6)}"
    person.organisations.CreateOrganisation(org.CreateOrganisationRequest(handle=handle))

    def switched() -> Member:
        request = auth_pb2.RefreshSessionRequest(refresh_token=person.session.refresh_token, organisation=handle)
        person.session = platform.anonymous.auth.RefreshSession(request).session
        return person

    owner = switched()
    key = org.CreateOrganisationKeyRequest(name="shared")
    owner.service_accounts.CreateOrganisationKey(key)
    move(platform, minutes=16)
    owner = switched()
    role = org.SetMemberRoleRequest(user_id=person.profile.user_id, role="owner")
    transfer = org.TransferOwnershipRequest(user_id=person.profile.user_id)
    calls = (
        (owner.service_accounts.CreateOrganisationKey, key),
        (owner.organisations.SetMemberRole, role),
        (owner.organisations.TransferOwnership, transfer),
    )
    assert [ends(call, request) for call, request in calls] == ["STEP_UP_REQUIRED"] * 3
    proved = confirm(owner, code=code_of(platform, secret))
    proved.service_accounts.CreateOrganisationKey(key)
    proved.organisations.SetMemberRole(role)
    assert ends(proved.organisations.TransferOwnership, transfer) != "STEP_UP_REQUIRED"

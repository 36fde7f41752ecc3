"""Who may decide about access to a model hears by mail that somebody asks; who asked, what was decided."""

from mercat.auth.v1 import auth_pb2, organisation_pb2, signin_pb2
from mercat.registry.v1 import access_pb2 as pb

from tests import graphs
from tests.expect import until
from tests.integration.registry.test_access import AUTOMATIC, MANUAL, ask, gate
from tests.integration.signin.people import Mailbox, Member
from tests.platform import Account, Platform


def verified(platform: Platform, mailbox: Mailbox, role: int = auth_pb2.ROLE_CONSUMER) -> Account:
    made = platform.sign_up(role)
    person = Member(platform, made.email, auth_pb2.Session(), made.profile).again()
    person.passwords.VerifyEmail(signin_pb2.VerifyEmailRequest(code=mailbox.code(made.email)))
    return made


def text(mailbox: Mailbox, address: str, count: int, subject: str) -> str:
    found = mailbox.to(address, count, subject)[-1].get_body(("plain",)).get_content()  # type: ignore[union-attr]
    return str(found).replace("\r\n", "\n")


def told(mailbox: Mailbox, person: Account, model: str) -> list[str]:
    """Subjects of what they were written about a model."""
    return [m["Subject"] for m in mailbox.messages if m["To"] == person.email and model in m["Subject"]]


def decided(platform: Platform, mailbox: Mailbox, owner: Account, model: str) -> None:
    """All that was to be written so far is: a mail that is caused now comes after it."""
    marker = platform.sign_up()
    ask(marker, model)
    mailbox.to(owner.email, 1, f"{marker.profile.organisation} asks")
    until(lambda: platform.value("SELECT count(*) FROM auth.mails") == 0)


def test_both_sides_hear_of_access_by_mail(platform: Platform, mailbox: Mailbox) -> None:
    founder, colleague, onlooker = (verified(platform, mailbox, auth_pb2.ROLE_PUBLISHER) for _ in range(3))
    house = platform.organisation(founder)
    platform.join(house, colleague, "developer")
    platform.join(house, onlooker, "viewer")
    model = platform.publish(house, graphs.tiny())
    gate(house, model, MANUAL, terms="Be kind.")
    boss, person = (verified(platform, mailbox) for _ in range(2))
    guests = platform.organisation(boss)
    guest = platform.join(guests, person, "developer")
    handle = guest.profile.organisation

    message = "for <b>our</b> search\n\nYour account is locked."
    ask(guest, model, message)
    subject = f"{handle} asks for access to {model}"
    for who in (founder, colleague):
        plain = text(mailbox, who.email, 1, subject)
        assert "> for <b>our</b> search\n> \n> Your account is locked." in plain  # no line of theirs looks like ours
        assert f"mercat access approve {model} {handle}" in plain
        assert person.email not in plain
    html = mailbox.to(founder.email, 1, subject)[-1].get_body(("html",)).get_content()  # type: ignore[union-attr]
    assert "&lt;b&gt;our&lt;/b&gt;" in html
    ask(guest, model, "again")  # nobody is written to for each time

    named = {"model": model, "organisation": handle}
    house.access.DenyModelAccess(pb.DenyModelAccessRequest(**named, reason="Say what <for>."))
    plain = text(mailbox, person.email, 1, f"Access of {handle} to {model} was denied")
    assert "> Say what <for>." in plain
    assert f"mercat access request {model} --accept" in plain
    assert house.email not in plain
    ask(guest, model, "for science")
    mailbox.to(founder.email, 2, subject)
    house.access.ApproveModelAccess(pb.ApproveModelAccessRequest(**named))
    assert f"mercat infer {model}" in text(mailbox, person.email, 1, f"Access of {handle} to {model} was granted")
    house.access.RevokeModelAccess(pb.RevokeModelAccessRequest(**named, reason="over"))
    assert "> over" in text(mailbox, person.email, 1, f"Access of {handle} to {model} was revoked")

    # Who asked is there no more: the owners hear what becomes of it.
    ask(guest, model)
    guests.organisations.RemoveMember(organisation_pb2.RemoveMemberRequest(user_id=person.profile.user_id))
    house.access.ApproveModelAccess(pb.ApproveModelAccessRequest(**named))
    mailbox.to(boss.email, 1, f"Access of {handle} to {model} was granted")
    decided(platform, mailbox, founder, model)
    assert len(told(mailbox, founder, subject)) == len(told(mailbox, colleague, subject)) == 3
    assert len(told(mailbox, person, model)) == 3
    assert told(mailbox, onlooker, model) == []
    assert told(mailbox, boss, model) == [f"Access of {handle} to {model} was granted"]


def test_who_lets_themselves_in_is_not_written_to(platform: Platform, mailbox: Mailbox) -> None:
    owner, person = verified(platform, mailbox, auth_pb2.ROLE_PUBLISHER), platform.sign_up()
    model = platform.publish(owner, graphs.tiny())
    gate(owner, model, AUTOMATIC)
    ask(person, model)
    gate(owner, model, MANUAL)
    decided(platform, mailbox, owner, model)
    assert told(mailbox, person, model) == []


def test_a_mail_about_access_survives_a_death_and_comes_once(platform: Platform, mailbox: Mailbox) -> None:
    owner, person = verified(platform, mailbox, auth_pb2.ROLE_PUBLISHER), platform.sign_up()
    model = platform.publish(owner, graphs.tiny())
    gate(owner, model, MANUAL)
    ask(person, model)
    platform.until_ready("control", platform.kill("control"))
    subject = f"{person.profile.organisation} asks for access to {model}"
    ids = {m["Message-ID"] for m in mailbox.to(owner.email, 1, subject)}
    decided(platform, mailbox, owner, model)
    assert len(ids | {m["Message-ID"] for m in mailbox.to(owner.email, 1, subject)}) == 1

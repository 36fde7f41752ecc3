"""Organisations whose people sign in by a provider of their own."""

import secrets
from dataclasses import dataclass
from typing import Any

from mercat.auth.v1 import auth_pb2
from mercat.auth.v1 import organisation_pb2 as org
from mercat.auth.v1 import sso_pb2 as pb

from tests.dns_server import DnsServer
from tests.integration.signin.elsewhere import Elsewhere
from tests.integration.signin.people import Member
from tests.integration.signin.test_identities import Program
from tests.platform import Account


def subject() -> str:
    return f"p{secrets.token_hex(5)}"


@dataclass
class Company:
    """An organisation with single sign-on for a domain of its own."""

    owner: Account
    domain: str
    elsewhere: Elsewhere

    @property
    def org_id(self) -> str:
        return self.owner.profile.org_id

    @property
    def handle(self) -> str:
        return self.owner.profile.organisation

    def connect(self, **more: Any) -> pb.SsoConnection:
        asked = {"issuer": self.elsewhere.issuer, "client_id": "mercat", "client_secret": "a secret"} | more
        made: pb.SsoConnection = self.owner.sso.SetSsoConnection(pb.SetSsoConnectionRequest(**asked)).connection
        return made

    def prove(self, names: DnsServer) -> None:
        record = self.owner.sso.AddSsoDomain(pb.AddSsoDomainRequest(domain=self.domain)).domain
        names.records[record.record_name] = [record.record_value]
        self.owner.sso.VerifySsoDomain(pb.VerifySsoDomainRequest(domain=self.domain))

    def visit(self, subject: str, person: Member | None = None, **claims: object) -> Program:
        """Somebody signs in at the provider, where they are `subject`."""
        self.elsewhere.put(subject, **{"email": f"{subject}@{self.domain}", "email_verified": True} | claims)
        program = Program(self.owner.platform, person=person, domain=self.domain)
        return program.follow(self.elsewhere.authorize(program.url, subject))

    def hire(self, person: Member, role: str) -> Account:
        """Somebody comes in and is given a role: their session for the organisation."""
        made = self.visit(subject(), email=person.email).sign_in()
        self.owner.organisations.SetMemberRole(org.SetMemberRoleRequest(user_id=made.profile.user_id, role=role))
        request = auth_pb2.RefreshSessionRequest(refresh_token=made.session.refresh_token, organisation=self.handle)
        session = self.owner.platform.anonymous.auth.RefreshSession(request).session
        return Account(self.owner.platform, session.access_token, made.profile, person.email)

    def roles(self) -> dict[str, str]:
        listed = self.owner.organisations.ListMembers(org.ListMembersRequest()).members
        return {m.user_id: m.role for m in listed}

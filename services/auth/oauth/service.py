"""Serves `mercat.auth.v1.OAuthService`: reads what a request names, lets the protocol decide, and does it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from mercat.auth.v1 import auth_pb2, oauth_pb2, oauth_pb2_grpc

from services.auth.oauth import protocol
from services.auth.oauth.codes import normal
from services.auth.oauth.models import (
    CLIENT_CREDENTIALS,
    COMMAND_LINE,
    REFRESH,
    Client,
    Device,
    Token,
    digest,
    scopes_of,
)
from services.auth.oauth.protocol import Decision, Protocol
from services.auth.oauth.store import OAuthStore
from services.auth.organisations.standing import forget
from services.auth.sessions.sessions import REFRESH_LIFETIME, Sessions
from services.auth.store import Store
from services.auth.tokens import LIFETIME, ClientProof, Signer
from services.common import audit, ids
from services.common.db import Connection
from services.common.errors import CredentialInvalid, SsoRequired
from services.common.rpc.context import Context, current
from services.common.service import Deps

Resolve = Callable[[str], Awaitable[auth_pb2.Principal]]
BEARER = "Bearer"
SECONDS = int(LIFETIME.total_seconds())


@dataclass
class OAuthServicer(oauth_pb2_grpc.OAuthServiceServicer):
    """`resolve`: whom an access token belongs to now. `url`: of this platform."""

    deps: Deps
    store: OAuthStore
    users: Store
    sessions: Sessions
    signer: Signer
    resolve: Resolve
    url: str

    async def IssueToken(self, request: oauth_pb2.IssueTokenRequest, context: Context) -> oauth_pb2.IssueTokenResponse:
        said = _parameters(request)
        async with self.deps.database.transaction() as connection:
            client = await self._client(connection, request.client_id)
            device, token = await self._device(connection, request), await self._refreshed(connection, request)
            decision = Protocol(client, device=device, token=token).decide_token(said)
            if decision.error:
                await self._polled(connection, device, decision)
            elif request.grant_type == CLIENT_CREDENTIALS:
                assert client is not None
                answer = self._for_client(client, request)
            elif request.grant_type != REFRESH:
                assert client is not None
                assert device is not None
                answer = await self._let_in(connection, client, device, request)
        if decision.error:
            raise decision.refusal()
        if request.grant_type == REFRESH:
            assert token is not None
            answer = await self._renew(token, request)
        return answer

    async def _client(self, connection: Connection, client_id: str) -> Client | None:
        if client_id == COMMAND_LINE.client_id:
            return COMMAND_LINE
        row = await self.store.find_client(connection, client_id)
        return None if row is None else Client.of(row)

    async def _device(self, connection: Connection, request: oauth_pb2.IssueTokenRequest) -> Device | None:
        """Locked, so that of two that ask at once one gets the session."""
        if not request.device_code:
            return None
        row = await self.store.lock_device(connection, digest(request.device_code))
        return None if row is None else Device(row, self.deps.clock.now())

    async def _refreshed(self, connection: Connection, request: oauth_pb2.IssueTokenRequest) -> Token | None:
        if not request.refresh_token:
            return None
        row = await self.store.find_refreshed(connection, digest(request.refresh_token))
        if row is None:
            return None
        return Token(row["client_id"], row["session_id"], row["user_id"], scopes=scopes_of(row))

    async def _polled(self, connection: Connection, device: Device | None, decision: Decision) -> None:
        if device is not None and decision.error in ("authorization_pending", "slow_down"):
            slower = protocol.SLOWER if decision.error == "slow_down" else 0
            await self.store.poll_device(connection, device.row["device_hash"], device.now, slower)

    def _for_client(self, client: Client, request: oauth_pb2.IssueTokenRequest) -> oauth_pb2.IssueTokenResponse:
        assert client.scopes is not None
        scopes = frozenset(request.scope.split()) or client.scopes
        proof = ClientProof(client.account_id, client.client_id, scopes, ids.new("tok"))
        self._audited(client, client.account_id, client.org_id, request)
        token, _ = self.signer.sign_for_client(proof)
        return oauth_pb2.IssueTokenResponse(
            access_token=token, token_type=BEARER, expires_in=SECONDS, scope=" ".join(sorted(scopes))
        )

    async def _let_in(
        self, connection: Connection, client: Client, device: Device, request: oauth_pb2.IssueTokenRequest
    ) -> oauth_pb2.IssueTokenResponse:
        row = device.row
        user = await self.users.get_user(connection, row["user_id"])
        if user is None:
            raise CredentialInvalid("this account is closed")
        self._audited(client, user["id"], user["org_id"], request)
        await self.store.end_device(connection, row["device_hash"])
        session = await self.sessions.open(
            connection, user["id"], second_factor=row["second_factor"], at=row["authenticated_at"],
            client_id=client.client_id, scopes=device.scopes, via=row["via"],
        )  # fmt: skip
        return _answer(session, device.scopes)

    async def _renew(self, token: Token, request: oauth_pb2.IssueTokenRequest) -> oauth_pb2.IssueTokenResponse:
        narrowed = frozenset(request.scope.split()) or None
        try:
            session = await self.sessions.refresh(request.refresh_token, narrowed=narrowed)
        except (CredentialInvalid, SsoRequired) as e:
            raise Decision(error="invalid_grant", description=e.message).refusal() from None
        return _answer(session, narrowed or token.scopes)

    @staticmethod
    def _audited(client: Client, user_id: str, org_id: str, request: oauth_pb2.IssueTokenRequest) -> None:
        """Only what is given is; devices ask every few seconds."""
        call = current()
        call.audited, call.request = True, request
        audit.about("oauth_client", client.client_id)
        audit.by(user_id, org_id)

    async def AuthorizeDevice(
        self, request: oauth_pb2.AuthorizeDeviceRequest, context: Context
    ) -> oauth_pb2.AuthorizeDeviceResponse:
        now = self.deps.clock.now()
        async with self.deps.database.transaction() as connection:
            client = await self._client(connection, request.client_id)
            decision = Protocol(client, page=f"{self.url}/oauth/device").decide(
                "device_authorization", _parameters(request)
            )
            if not decision.error:
                assert client is not None
                body = decision.body
                asked = frozenset(request.scope.split()) or client.scopes
                await self.store.forget(connection, now)
                await self.store.add_device(
                    connection, device_hash=digest(body["device_code"]), user_hash=digest(normal(body["user_code"])),
                    client_id=client.client_id, scopes=asked, ip_address=current().address, now=now,
                    expires_at=now + timedelta(seconds=protocol.LIFETIME), interval_seconds=protocol.INTERVAL,
                )  # fmt: skip
        if decision.error:
            raise decision.refusal()
        return oauth_pb2.AuthorizeDeviceResponse(**decision.body)

    async def IntrospectToken(
        self, request: oauth_pb2.IntrospectTokenRequest, context: Context
    ) -> oauth_pb2.IntrospectTokenResponse:
        token = await self._opening(request.token)
        async with self.deps.database.connection() as connection:
            client = await self._client(connection, request.client_id)
        decision = Protocol(client, token=token).decide("introspection", _parameters(request))
        if decision.error:
            raise decision.refusal()
        if token is None or token.principal is None or not decision.body["active"]:
            return oauth_pb2.IntrospectTokenResponse()
        principal = token.principal
        return oauth_pb2.IntrospectTokenResponse(
            active=True, scope=" ".join(principal.scopes), client_id=token.client_id, token_type=BEARER,
            exp=principal.expires_at.seconds, sub=principal.user_id, aud="mercat", iss=self.url,
            org_id=principal.org_id,
        )  # fmt: skip

    async def _opening(self, text: str) -> Token | None:
        """An access token that opens something now."""
        try:
            proof, _ = self.signer.check(text)
            principal = await self.resolve(text)
        except (CredentialInvalid, SsoRequired):
            return None
        return Token(proof.client_id, principal=principal)

    async def RevokeToken(
        self, request: oauth_pb2.RevokeTokenRequest, context: Context
    ) -> oauth_pb2.RevokeTokenResponse:
        async with self.deps.database.transaction() as connection:
            client = await self._client(connection, request.client_id)
            token = await self._revocable(connection, request.token)
            decision = Protocol(client, token=token).decide("revocation", _parameters(request))
            if token is not None and not decision.error:
                call = current()
                call.audited, call.request = True, request
                audit.about("oauth_client", token.client_id)
                audit.by(token.user_id, client.org_id if client is not None else "")
                if token.session_id:
                    await self.sessions.end(connection, token.session_id, token.user_id)
                else:
                    assert token.expires_at is not None
                    await self.store.revoke_token(connection, token.token_id, token.expires_at)
        if decision.error:
            raise decision.refusal()
        if token is not None and token.session_id:
            await self.sessions.forget(token.user_id)
        elif token is not None:
            await forget(self.deps.events, key_id=token.client_id)
        return oauth_pb2.RevokeTokenResponse()

    async def _revocable(self, connection: Connection, text: str) -> Token | None:
        """A token that was given to a client and is good."""
        row = await self.store.find_refreshed(connection, digest(text))
        if row is None:
            try:
                proof, expires = self.signer.check(text)
            except CredentialInvalid:
                return None
            if isinstance(proof, ClientProof):
                return Token(proof.client_id, user_id=proof.account_id, token_id=proof.token_id, expires_at=expires)
            row = await self.store.find_session(connection, proof.session_id, proof.user_id)
            if row is None or row["client_id"] is None:
                return None
        return Token(row["client_id"], row["session_id"], row["user_id"])


def _parameters(request: object) -> dict[str, str]:
    return {field.name: value for field, value in request.ListFields()}  # type: ignore[attr-defined]


def _answer(session: auth_pb2.Session, scopes: frozenset[str] | None) -> oauth_pb2.IssueTokenResponse:
    return oauth_pb2.IssueTokenResponse(
        access_token=session.access_token, token_type=BEARER, expires_in=SECONDS,
        scope=" ".join(sorted(scopes or ())), refresh_token=session.refresh_token,
        refresh_expires_in=int(REFRESH_LIFETIME.total_seconds()),
    )  # fmt: skip

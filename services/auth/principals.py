"""Answers who a credential belongs to, for the other services."""

import json
from collections.abc import Mapping

from mercat.auth.v1 import auth_pb2, auth_pb2_grpc

from services.auth import keys, tiers
from services.auth.keys import LastUsed
from services.auth.oauth.principals import ClientPrincipals
from services.auth.organisations.roles import standing
from services.auth.sessions.store import SessionStore
from services.auth.signing_keys import SigningKeys
from services.auth.sso.requiring import check_session
from services.auth.store import Row, Store
from services.auth.teams.store import TeamNotFound
from services.auth.tokens import ClientProof, Signer
from services.common import call_limits, key_rules
from services.common.clock import Clock
from services.common.db import Database
from services.common.errors import CredentialInvalid, NotFound, SsoRequired
from services.common.rpc.context import Context


class PrincipalServicer(auth_pb2_grpc.PrincipalServiceServicer):
    """Serves `mercat.auth.v1.PrincipalService`."""

    def __init__(
        self, database: Database, store: Store, sessions: SessionStore, signer: Signer, signs: SigningKeys,
        last_used: LastUsed, clients: ClientPrincipals, clock: Clock, *, demands_verification: bool,
    ) -> None:  # fmt: skip
        self._database = database
        self._store = store
        self._sessions = sessions
        self._demands_verification = demands_verification
        self._signer = signer
        self._signs = signs
        self._last_used = last_used
        self._clients = clients
        self._clock = clock

    async def ResolvePrincipals(
        self, request: auth_pb2.ResolvePrincipalsRequest, context: Context
    ) -> auth_pb2.ResolvePrincipalsResponse:
        digests = {secret: keys.digest(secret) for secret in request.credentials if keys.well_formed(secret)}
        rows: dict[bytes, Row] = {}
        signing: dict[str, list[auth_pb2.KeySigning.Key]] = {}
        if digests:
            async with self._database.connection() as connection:
                rows = await self._store.resolve_api_keys(connection, list(digests.values()))
                signing = await self._signs.of(connection, rows.values())
        response = auth_pb2.ResolvePrincipalsResponse()
        for credential in request.credentials:
            answer = response.answers.add()
            try:
                if credential.startswith("mk_"):
                    key_hash = digests.get(credential, b"")
                    principal = self._of_key(key_hash, rows.get(key_hash), signing)
                else:
                    principal = await self.of_token(credential)
                answer.principal.CopyFrom(principal)
            except CredentialInvalid as e:
                answer.refusal = e.message
            except SsoRequired as e:
                answer.refusal, answer.sso_domain = e.message, e.metadata["domain"]
        return response

    async def GetPrincipal(
        self, request: auth_pb2.GetPrincipalRequest, context: Context
    ) -> auth_pb2.GetPrincipalResponse:
        if not request.key_id:
            principal = self._of_member(await self._member(request.user_id, request.org_id))
            return auth_pb2.GetPrincipalResponse(principal=principal)
        if request.key_id.startswith("cli_"):
            principal = await self._clients.of_client(request.key_id)
            if request.user_id not in ("", principal.user_id) or request.org_id not in ("", principal.org_id):
                raise CredentialInvalid("this client is unknown or revoked")
            return auth_pb2.GetPrincipalResponse(principal=principal)
        async with self._database.connection() as connection:
            row = await self._store.get_key_principal(connection, request.key_id, request.user_id, request.org_id)
        return auth_pb2.GetPrincipalResponse(principal=self._of_row(row))

    async def FindOrganisation(
        self, request: auth_pb2.FindOrganisationRequest, context: Context
    ) -> auth_pb2.FindOrganisationResponse:
        async with self._database.connection() as connection:
            org_id = await self._store.find_organisation(connection, request.handle)
            domains = await self._store.verified_domains(connection, org_id) if org_id else []
        if org_id is None:
            raise NotFound(f"there is no organisation {request.handle}", reason="ORGANISATION_NOT_FOUND")
        return auth_pb2.FindOrganisationResponse(org_id=org_id, verified_domains=domains)

    async def ListTeamUsers(
        self, request: auth_pb2.ListTeamUsersRequest, context: Context
    ) -> auth_pb2.ListTeamUsersResponse:
        async with self._database.connection() as connection:
            found = await self._store.list_team_users(connection, request.team_id, request.org_id)
        if found is None:
            raise TeamNotFound("the organisation has no such team; see `mercat org team list`")
        return auth_pb2.ListTeamUsersResponse(user_ids=found)

    def _of_key(
        self, key_hash: bytes, row: Row | None, signing: Mapping[str, list[auth_pb2.KeySigning.Key]]
    ) -> auth_pb2.Principal:
        if not key_hash:
            raise CredentialInvalid("this is no API key: it is mistyped or cut off")
        if row is not None and row["secret_expires_at"] is not None and row["secret_expires_at"] <= self._clock.now():
            raise CredentialInvalid("this secret of the key was replaced by another, and its time is over")
        principal = self._of_row(row)
        signs = signing.get(principal.key_id, [])
        if signs or principal.rules.require_signature:
            principal.signing.keys.extend(signs)
            principal.signing.required = principal.rules.require_signature
        self._last_used.mark(key_hash, self._clock.now())
        return principal

    def _of_row(self, row: Row | None) -> auth_pb2.Principal:
        now = self._clock.now()
        if row is None or not row["is_active"] or (row["expires_at"] is not None and row["expires_at"] <= now):
            raise CredentialInvalid("this API key is unknown, revoked or expired; make one with `mercat keys create`")
        role, scopes = standing(row)
        principal = auth_pb2.Principal(
            user_id=row["principal_id"], org_id=row["org_id"], handle=row["handle"], key_id=row["key_id"], role=role,
            scopes=sorted(scopes.intersection(json.loads(row["scopes"]))), test=row["test"],
            account_limit=tiers.of_account(row), key_limit=call_limits.read(row["key_call_limit"]),
            unverified=self._unverified(row), rules=key_rules.read(row["rules"]),
        )  # fmt: skip
        if row["expires_at"] is not None:
            principal.expires_at.FromDatetime(row["expires_at"])
        return principal

    async def of_token(self, token: str) -> auth_pb2.Principal:
        """Raises CredentialInvalid for a token that opens nothing now, and SsoRequired for one of a session that its
        organisation does not let in as it was opened."""
        proof, expires = self._signer.check(token)
        if isinstance(proof, ClientProof):
            principal = await self._clients.of_token(proof)
            principal.expires_at.FromDatetime(expires)
            return principal
        async with self._database.connection() as connection:
            via = await self._sessions.get_via(connection, proof.session_id, proof.user_id)
        if via is None:
            raise CredentialInvalid("this session has ended; sign in again")
        row = await self._member(proof.user_id, proof.org_id)
        check_session(row, via)
        principal = self._of_member(row)
        principal.expires_at.FromDatetime(expires)
        principal.session_id, principal.second_factor_used = proof.session_id, proof.second_factor
        principal.auth_time.FromDatetime(proof.at)
        if proof.scopes is not None:
            principal.scopes[:] = sorted(proof.scopes.intersection(principal.scopes))
        return principal

    async def _member(self, user_id: str, org_id: str) -> Row:
        async with self._database.connection() as connection:
            row = await self._store.get_member_principal(connection, user_id, org_id)
        if row is None:
            raise CredentialInvalid("this account is closed, or not in this organisation any more")
        return row

    def _of_member(self, row: Row) -> auth_pb2.Principal:
        role, scopes = standing(row)
        return auth_pb2.Principal(
            user_id=row["principal_id"], org_id=row["org_id"], handle=row["handle"], role=role, scopes=sorted(scopes),
            account_limit=tiers.of_account(row), has_second_factor=row["second_factor"],
            unverified=self._unverified(row),
        )  # fmt: skip

    def _unverified(self, row: Row) -> bool:
        return self._demands_verification and not row["is_verified"]

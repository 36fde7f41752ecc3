"""Whom the access tokens of OAuth clients belong to: a service account, within the client's scopes."""

import json

from mercat.auth.v1 import auth_pb2

from services.auth import tiers
from services.auth.oauth.store import OAuthStore
from services.auth.organisations.roles import standing
from services.auth.store import Row
from services.auth.tokens import ClientProof
from services.common.db import Database
from services.common.errors import CredentialInvalid


class ClientPrincipals:
    """Answers who a client calls as. Its id stands where a key's does: what was called with it is told apart by it, and
    no person is behind it who could prove anything again."""

    def __init__(self, database: Database, store: OAuthStore) -> None:
        self._database = database
        self._store = store

    async def of_token(self, proof: ClientProof) -> auth_pb2.Principal:
        """Raises CredentialInvalid when the client or the token was revoked, or the account is gone."""
        principal = await self.of_client(proof.client_id, proof.token_id)
        if principal.user_id != proof.account_id:
            raise CredentialInvalid("the access token is not valid")
        principal.scopes[:] = sorted(proof.scopes.intersection(principal.scopes))
        return principal

    async def of_client(self, client_id: str, token_id: str = "") -> auth_pb2.Principal:
        """As `of_token`, with all scopes that the client has now."""
        async with self._database.connection() as connection:
            row = await self._store.get_client_principal(connection, client_id, token_id)
        if row is None:
            raise CredentialInvalid("this client, or its token, is unknown or revoked")
        return principal_of(row)


def principal_of(row: Row) -> auth_pb2.Principal:
    role, scopes = standing(row)
    return auth_pb2.Principal(
        user_id=row["principal_id"], org_id=row["org_id"], handle=row["handle"], key_id=row["client_id"], role=role,
        scopes=sorted(scopes.intersection(json.loads(row["scopes"]))), account_limit=tiers.of_account(row),
    )  # fmt: skip

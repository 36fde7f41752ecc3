"""Puts together what makes Mercat an OAuth 2.0 server."""

from mercat.auth.v1 import oauth_pb2_grpc

from services.auth.oauth.clients import OAuthClientServicer
from services.auth.oauth.devices import DeviceServicer
from services.auth.oauth.service import OAuthServicer, Resolve
from services.auth.oauth.store import OAuthStore
from services.auth.organisations.store import OrganisationStore
from services.auth.signing_in import SigningIn
from services.auth.store import Store
from services.auth.tokens import Signer
from services.common.rpc.server import Registration
from services.common.service import Deps


def registrations(
    deps: Deps, store: OAuthStore, users: Store, organisations: OrganisationStore, signing_in: SigningIn,
    signer: Signer, resolve: Resolve,
) -> list[Registration]:  # fmt: skip
    """`resolve`: whom an access token belongs to now."""
    tokens = OAuthServicer(deps, store, users, signing_in.sessions, signer, resolve, deps.settings.url)
    devices = DeviceServicer(deps.database, store, users, signing_in.lockout, signing_in.letters, deps.clock)
    clients = OAuthClientServicer(deps, store, organisations)
    return [
        (oauth_pb2_grpc.add_OAuthServiceServicer_to_server, tokens),
        (oauth_pb2_grpc.add_DeviceServiceServicer_to_server, devices),
        (oauth_pb2_grpc.add_OAuthClientServiceServicer_to_server, clients),
    ]

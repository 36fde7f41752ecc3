"""Puts together what makes Mercat an OAuth 2.0 server and a client of others, and signing in without a password."""

from mercat.auth.v1 import identity_pb2_grpc, oauth_pb2_grpc, passkey_pb2_grpc, sso_pb2_grpc

from services.auth.accounts import Accounts
from services.auth.identities import providers
from services.auth.identities.protocol import Relying
from services.auth.identities.service import IdentityServicer
from services.auth.identities.store import IdentityStore
from services.auth.oauth.clients import OAuthClientServicer
from services.auth.oauth.devices import DeviceServicer
from services.auth.oauth.service import OAuthServicer, Resolve
from services.auth.oauth.store import OAuthStore
from services.auth.organisations.store import OrganisationStore
from services.auth.passkeys.ceremonies import Ceremonies
from services.auth.passkeys.service import PasskeyServicer
from services.auth.passkeys.store import PasskeyStore
from services.auth.settings import AuthSettings
from services.auth.signing_in import SigningIn
from services.auth.sso.connecting import Connecting
from services.auth.sso.domains import Dns
from services.auth.sso.service import SsoServicer
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


def without_password(
    deps: Deps, settings: AuthSettings, users: Store, organisations: OrganisationStore, signing_in: SigningIn
) -> list[Registration]:
    """Signing in with accounts elsewhere, an organisation's provider among them, and with passkeys. Raises
    SettingsError."""
    relying = Relying(f"{settings.url}/oauth/callback")
    connecting = Connecting(
        deps.database,
        signing_in.sso_store,
        organisations,
        signing_in.keyring,
        deps.clock,
        settings.sso_private_networks,
    )
    servicer = IdentityServicer(
        deps, providers.read(settings.identity_providers), relying, IdentityStore(), users,
        Accounts(users, signing_in.codes, signing_in.handles, deps.clock), signing_in, connecting,
        f"{settings.url}/oauth/sign-in/return",
    )  # fmt: skip
    sso = SsoServicer(deps, connecting, relying, Dns(settings.dns_server))
    passkeys = PasskeyServicer(deps, Ceremonies(settings.url), PasskeyStore(), users, signing_in)
    return [
        (identity_pb2_grpc.add_IdentityServiceServicer_to_server, servicer),
        (sso_pb2_grpc.add_SsoServiceServicer_to_server, sso),
        (passkey_pb2_grpc.add_PasskeyServiceServicer_to_server, passkeys),
    ]

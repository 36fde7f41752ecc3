"""Who people and programs are: users and organisations, sessions, API keys, and the audit log.
What somebody may do with what they are is decided by the contract's policies, not here."""

from mercat.auth.v1 import audit_pb2_grpc, auth_pb2_grpc, keys_pb2_grpc, organisation_pb2_grpc, team_pb2_grpc
from mercat.event.v1 import event_pb2

from services.auth import granting
from services.auth.audit.heads import Heads
from services.auth.audit.service import AuditServicer
from services.auth.audit.store import AuditStore
from services.auth.audit.writer import Writer
from services.auth.key_service import ApiKeyServicer
from services.auth.keys import LastUsed
from services.auth.limits import LimitServicer
from services.auth.oauth.principals import ClientPrincipals
from services.auth.oauth.store import OAuthStore
from services.auth.organisations.accounts import ServiceAccountServicer
from services.auth.organisations.invitations import InvitationServicer
from services.auth.organisations.service import OrganisationServicer
from services.auth.organisations.store import OrganisationStore
from services.auth.principals import PrincipalServicer
from services.auth.privacy.parts import PrivacyParts
from services.auth.service import AuthServicer
from services.auth.settings import AuthSettings
from services.auth.signing_in import SigningIn
from services.auth.signing_keys import SigningKeys
from services.auth.store import Store
from services.auth.teams.service import TeamServicer
from services.auth.teams.store import TeamStore
from services.auth.tokens import Signer
from services.common.events import consume
from services.common.service import Deps, Service
from services.common.signing import KeyFile


async def build(deps: Deps) -> Service:
    settings = deps.settings
    assert isinstance(settings, AuthSettings)
    store, organisations, audit_store = Store(), OrganisationStore(), AuditStore()
    signer = Signer(settings.jwt_key_file or settings.home / "secrets" / "jwt.pem", deps.clock, settings.url)
    last_used = LastUsed(deps.database, store)
    signing_in = SigningIn(deps, settings, store, signer)
    privacy = PrivacyParts(deps, settings, organisations, signing_in)
    servicer = AuthServicer(
        deps, settings, store, signer, signing_in.sessions, signing_in.proving, signing_in.codes, signing_in.strength,
        signing_in.requiring, privacy.consents, signing_in.handles,
    )  # fmt: skip
    await servicer.ensure_admin(settings.admin_email, settings.admin_password)
    signs = SigningKeys(store, signing_in.keyring)
    writer = Writer(audit_store)
    keys = KeyFile(settings.audit_key_file or settings.home / "secrets" / "audit.pem")
    heads = Heads(deps.database, audit_store, writer, keys, deps.control, deps.clock, settings)

    oauth_store = OAuthStore()
    principals = PrincipalServicer(
        deps.database, store, signing_in.session_store, signer, signs, last_used,
        ClientPrincipals(deps.database, oauth_store), deps.clock, demands_verification=settings.demands_verification,
    )  # fmt: skip

    async def audit() -> None:
        await consume(deps.events, deps.database, "audit", [event_pb2.AuditRecorded], writer.write)

    return Service(
        "auth",
        registrations=[
            (auth_pb2_grpc.add_AuthServiceServicer_to_server, servicer),
            (auth_pb2_grpc.add_LimitServiceServicer_to_server, LimitServicer(deps.database, store, deps.events)),
            (keys_pb2_grpc.add_ApiKeyServiceServicer_to_server, ApiKeyServicer(deps, store, signing_in.letters, signs)),
            (auth_pb2_grpc.add_PrincipalServiceServicer_to_server, principals),
            (
                organisation_pb2_grpc.add_OrganisationServiceServicer_to_server,
                OrganisationServicer(deps, organisations, signing_in.handles),
            ),
            (
                organisation_pb2_grpc.add_InvitationServiceServicer_to_server,
                InvitationServicer(deps, organisations, signing_in.letters),
            ),
            (
                organisation_pb2_grpc.add_ServiceAccountServiceServicer_to_server,
                ServiceAccountServicer(deps, organisations, store),
            ),
            (
                team_pb2_grpc.add_TeamServiceServicer_to_server,
                TeamServicer(deps, TeamStore(), organisations),
            ),
            (audit_pb2_grpc.add_AuditServiceServicer_to_server, AuditServicer(deps.database, audit_store, heads)),
            *privacy.registrations,
            *signing_in.registrations,
            *granting.registrations(
                deps, oauth_store, store, organisations, signing_in, signer, principals.of_token
            ),
            *granting.without_password(deps, settings, store, organisations, signing_in),
        ],
        tasks=[audit, heads.repeat, last_used.keep, *signing_in.tasks, *privacy.tasks],
        close=last_used.flush,
    )  # fmt: skip

"""Who people and programs are: users and their personal organisations, sessions, API keys, and the audit log.
What somebody may do with what they are is decided by the contract's policies, not here."""

from mercat.auth.v1 import auth_pb2_grpc
from mercat.event.v1 import event_pb2

from services.auth.audit import write
from services.auth.keys import LastUsed
from services.auth.limits import LimitServicer
from services.auth.principals import PrincipalServicer
from services.auth.service import AuthServicer
from services.auth.store import Store
from services.auth.tokens import Signer
from services.common.events import consume
from services.common.service import Deps, Service


async def build(deps: Deps) -> Service:
    store = Store()
    signer = Signer.load(deps.settings.jwt_key_file or deps.settings.home / "secrets" / "jwt.pem", deps.clock)
    last_used = LastUsed(deps.database, store)
    servicer = AuthServicer(deps, store, signer)
    await servicer.ensure_admin(deps.settings.admin_email, deps.settings.admin_password)

    async def audit() -> None:
        await consume(deps.events, deps.database, "audit", [event_pb2.AuditRecorded], write)

    return Service(
        "auth",
        registrations=[
            (auth_pb2_grpc.add_AuthServiceServicer_to_server, servicer),
            (auth_pb2_grpc.add_LimitServiceServicer_to_server, LimitServicer(deps.database, store, deps.events)),
            (
                auth_pb2_grpc.add_PrincipalServiceServicer_to_server,
                PrincipalServicer(deps.database, store, signer, last_used, deps.clock),
            ),
        ],
        tasks=[audit, last_used.keep],
        close=last_used.flush,
    )

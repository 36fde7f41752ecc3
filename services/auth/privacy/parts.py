"""What auth hosts of exports and erasures."""

from datetime import timedelta

from mercat.auth.v1 import privacy_pb2_grpc

from services.auth.organisations.store import OrganisationStore
from services.auth.privacy.consents import Consents, ConsentServicer
from services.auth.privacy.data import AuthData
from services.auth.privacy.saga import Saga
from services.auth.privacy.service import PrivacyServicer
from services.auth.privacy.store import PrivacyStore
from services.auth.settings import AuthSettings
from services.auth.signing_in import SigningIn
from services.common.personal.tasks import PersonTasks
from services.common.rpc.server import Registration
from services.common.service import Deps, Task


class PrivacyParts:
    """Constructs it; `registrations` and `tasks` are the service's, `consents` what sign-up asks."""

    def __init__(
        self, deps: Deps, settings: AuthSettings, organisations: OrganisationStore, signing_in: SigningIn
    ) -> None:
        store, kept = PrivacyStore(), timedelta(hours=settings.export_hours)
        data = AuthData(deps.database, store, signing_in.keyring, signing_in.outbox, deps.control)
        saga = Saga(deps, store, signing_in.keyring, data)
        self.consents = Consents(store, settings, deps.clock)
        self.registrations: list[Registration] = [
            (
                privacy_pb2_grpc.add_PrivacyServiceServicer_to_server,
                PrivacyServicer(
                    deps, store, organisations, signing_in.keyring, signing_in.sessions, signing_in.handles, kept
                ),
            ),
            (
                privacy_pb2_grpc.add_ConsentServiceServicer_to_server,
                ConsentServicer(deps.database, store, self.consents),
            ),
        ]
        self.tasks: list[Task] = [*PersonTasks(deps, "auth", data).tasks, *saga.tasks]

"""Models and their immutable versions, from upload over validation and review to publication and deprecation.
How models are found is the marketplace's, how they are run the inference workers'."""

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.common.service import Deps, Service


async def build(deps: "Deps") -> "Service":
    # Here, since the processes in which models are opened and converted import a part of this package only.
    from mercat.registry.v1 import (
        access_pb2_grpc,
        card_pb2_grpc,
        lineage_pb2_grpc,
        provenance_pb2_grpc,
        registry_pb2_grpc,
        transfer_pb2_grpc,
    )

    from services.common.personal.tasks import PersonTasks
    from services.common.service import Service
    from services.registry.access.service import AccessServicer
    from services.registry.access.store import AccessStore
    from services.registry.addresses import Addresses
    from services.registry.cards.service import CardServicer
    from services.registry.deployments import DeploymentServicer
    from services.registry.lineage.service import LineageServicer
    from services.registry.lineage.store import LineageStore
    from services.registry.personal import RegistryData
    from services.registry.provenance.service import PublisherKeyServicer
    from services.registry.provenance.store import KeyStore
    from services.registry.quarantine import Quarantine
    from services.registry.repository import Repository
    from services.registry.retiring import Retiring
    from services.registry.service import RegistryServicer
    from services.registry.settings import RegistrySettings
    from services.registry.store import Store
    from services.registry.transfers.service import TransferServicer
    from services.registry.transfers.store import TransferStore
    from services.registry.validator import Validator

    settings = deps.settings
    assert isinstance(settings, RegistrySettings)
    store, accesses = Store(), AccessStore()
    repository = Repository(deps.database, store, deps.control, settings)
    validator = Validator(
        deps.database, store, deps.control, deps.clock, settings.home / "tmp", settings.converters,
        settings.text_context,
    )  # fmt: skip
    undelete = timedelta(seconds=settings.undelete_seconds)
    quarantine = Quarantine(deps.database, store, deps.clock)
    keys, lineage = KeyStore(), LineageStore()
    addresses = Addresses(store, deps.clock, settings.released_name_days)
    servicer = RegistryServicer(
        deps.database,
        store,
        deps.control,
        deps.clock,
        validator.wake,
        repository,
        undelete,
        keys,
        lineage,
        addresses,
    )
    return Service(
        "registry",
        registrations=[
            (registry_pb2_grpc.add_RegistryServiceServicer_to_server, servicer),
            (card_pb2_grpc.add_CardServiceServicer_to_server, CardServicer(servicer)),
            (
                provenance_pb2_grpc.add_PublisherKeyServiceServicer_to_server,
                PublisherKeyServicer(deps, keys),
            ),
            (
                lineage_pb2_grpc.add_LineageServiceServicer_to_server,
                LineageServicer(deps.database, lineage, servicer),
            ),
            (
                registry_pb2_grpc.add_DeploymentServiceServicer_to_server,
                DeploymentServicer(deps.database, store, accesses, repository, quarantine, deps.clock, undelete),
            ),
            (
                transfer_pb2_grpc.add_TransferServiceServicer_to_server,
                TransferServicer(deps, store, TransferStore(), addresses),
            ),
            (access_pb2_grpc.add_AccessServiceServicer_to_server, AccessServicer(deps, store, accesses)),
        ],
        tasks=[
            validator.work,
            repository.keep,
            Retiring(deps.database, store, deps.clock).run,
            *PersonTasks(deps, "registry", RegistryData(deps.database, deps.control)).tasks,
        ],
    )

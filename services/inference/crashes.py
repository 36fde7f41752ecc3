"""Tells the registry which versions bring their engines down."""

import asyncio
import logging

from mercat.registry.v1 import registry_pb2, registry_pb2_grpc

from services.common import ids
from services.common.errors import MercatError
from services.common.rpc.channels import InternalChannel

log = logging.getLogger(__name__)
_WAITS = (0.5, 2.0, 10.0, 60.0)  # seconds between attempts


class Crashes:
    """One worker's reports, made in the background."""

    def __init__(self, channel: InternalChannel, worker_id: str) -> None:
        self._stub = registry_pb2_grpc.DeploymentServiceStub(channel)
        self._worker_id = worker_id
        self._reports: set[asyncio.Task[None]] = set()

    def report(self, deployment: registry_pb2.Deployment) -> None:
        """Counts one crash of a version, once."""
        task = asyncio.get_running_loop().create_task(self._tell(deployment))
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)

    async def _tell(self, deployment: registry_pb2.Deployment) -> None:
        request = registry_pb2.ReportCrashRequest(
            version_id=deployment.version_id, crash_id=ids.new("crs"), worker_id=self._worker_id
        )
        for wait in (*_WAITS, None):
            try:
                answer = await self._stub.ReportCrash(request, timeout=5)
            except MercatError as e:
                log.warning("a crash of %s could not be reported: %s", deployment.version_id, e)
                if wait is not None:
                    await asyncio.sleep(wait)
            else:
                state = registry_pb2.VersionState.Name(answer.state)
                log.warning("%s crashed %d times and is %s", deployment.version_id, answer.crashes, state)
                return

"""One version in Triton: loaded there beside those that Triton holds, found missing, loaded again, unloaded."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format, text_format
from mercat.registry.v1 import registry_pb2
from tritonclient.grpc import model_config_pb2, service_pb2

from services.common.errors import EngineFailed, MercatError
from services.inference.engines import EngineUnavailable, ModelRefused

if TYPE_CHECKING:
    from services.inference.engines.triton import TritonEngine

log = logging.getLogger(__name__)
_LOAD = 300.0  # seconds that loading may take
_ATTEMPTS = 3  # another worker's load can take a version away between this one's load and run


class Gone(Exception):
    """Triton lives, but does not hold the version: it was started anew, or somebody unloaded it."""


class Crashed(Exception):
    """The process in which Triton runs the model is dead, by this call's tensors or by others'."""


class TritonVersion:
    """What is done with a version, whatever it is called with."""

    def __init__(self, engine: "TritonEngine", deployment: registry_pb2.Deployment) -> None:
        self.engine = engine
        self.name = deployment.repository_model
        self._id = deployment.model_id  # which logs say: the name has its publisher's
        self.number = deployment.repository_version
        self._config = text_format.Parse(deployment.repository_config, model_config_pb2.ModelConfig())
        self._reviving: asyncio.Task[None] | None = None

    @property
    def parameters(self) -> dict[str, str]:
        """Those of its configuration."""
        return {name: value.string_value for name, value in self._config.parameters.items()}

    async def ensure(self) -> None:
        """Has Triton hold this version beside those it holds. Raises EngineFailed, EngineUnavailable."""
        async with self.engine.lock(self.name):
            if await self.is_ready():
                return
            await self._serve({*await self._served(), self.number})
            if not await self.is_ready():
                raise EngineFailed(f"Triton's model repository has no version {self.number} of {self.name}")

    async def unload(self) -> None:
        async with self.engine.lock(self.name):
            others = await self._served() - {self.number}
            if others:
                await self._serve(others)
            else:
                request = service_pb2.RepositoryModelUnloadRequest(model_name=self.name)
                await self.engine.control("RepositoryModelUnload", request)

    async def statistics(self) -> Any:
        """Triton's own `ModelStatistics` of this version: counts, and nanoseconds by stage."""
        request = service_pb2.ModelStatisticsRequest(name=self.name, version=str(self.number))
        answer = await self.held(lambda: self.engine.control("ModelStatistics", request))
        return answer.model_stats[0]

    async def held(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Makes a call that needs the version, loading it again when Triton lost it."""
        for _ in range(_ATTEMPTS):
            try:
                return await call()
            except Gone:
                await self.ensure()
            except Crashed as e:
                self.revive()
                raise EngineFailed("the engine failed") from e
        raise EngineUnavailable("Triton does not keep this model loaded; try again in a moment", retry_after=1)

    def revive(self) -> None:
        """Sets about getting its process back."""
        if self._reviving is None or self._reviving.done():
            self._reviving = asyncio.get_running_loop().create_task(self._revive())

    async def _revive(self) -> None:
        """Triton leaves a version whose process is dead as it is; unloaded and loaded it gets another."""
        try:
            await self.unload()
            await self.ensure()
        except MercatError as e:
            log.warning("%s, version %d, stays dead: %s", self._id, self.number, e.message)

    async def is_ready(self) -> bool:
        """Whether Triton holds it."""
        request = service_pb2.ModelReadyRequest(name=self.name, version=str(self.number))
        return bool((await self.engine.control("ModelReady", request)).ready)

    async def _served(self) -> set[int]:
        """The versions that Triton holds."""
        try:
            answer = await self.engine.control("ModelMetadata", service_pb2.ModelMetadataRequest(name=self.name))
        except Gone:
            return set()
        return {int(version) for version in answer.versions}

    async def _serve(self, versions: set[int]) -> None:
        """Has Triton hold just these versions. Those it holds already go on undisturbed."""
        config = model_config_pb2.ModelConfig()
        config.CopyFrom(self._config)
        config.version_policy.specific.versions[:] = sorted(versions)
        request = service_pb2.RepositoryModelLoadRequest(model_name=self.name)
        request.parameters["config"].string_param = json_format.MessageToJson(config, preserving_proto_field_name=True)
        try:
            await self.engine.control("RepositoryModelLoad", request, _LOAD)
        except (ModelRefused, EngineFailed, Gone, Crashed) as e:
            log.warning("Triton does not load %s, versions %s: %s", self._id, sorted(versions), e)
            raise EngineFailed("the model could not be loaded") from e

"""Starts the decoders that run on this machine."""

from dataclasses import dataclass

from mercat.registry.v1 import registry_pb2

from services.common.texts.limits import Limits
from services.inference.artifacts import Artifacts
from services.inference.engines import Crashed
from services.inference.text.process import DecoderProcess


@dataclass(frozen=True, slots=True)
class Decoders:
    """Each decoder is a process of its own. `limits` and `memory_mib` of address space are of each; `crashed` is called
    with the version that brought its process down."""

    artifacts: Artifacts
    limits: Limits
    memory_mib: int
    crashed: Crashed

    async def load(self, deployment: registry_pb2.Deployment) -> DecoderProcess:
        """As Engine.load_decoder."""
        path = await self.artifacts.find(deployment)
        made = DecoderProcess(path, deployment, self.limits, memory_mib=self.memory_mib, crashed=self.crashed)
        await made.open()
        return made

    async def elsewhere(self, deployment: registry_pb2.Deployment, limits: Limits) -> DecoderProcess:
        """Of a decoder that another engine runs, within limits: its prompts can be counted and written once it is
        opened. Raises as Engine.load_decoder."""
        path = await self.artifacts.find(deployment)
        return DecoderProcess(
            path, deployment, limits, memory_mib=self.memory_mib, crashed=self.crashed, elsewhere=True
        )

"""Engines: what runs models. `Engine` is the one interface; every implementation passes one behaviour suite."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from mercat.registry.v1 import registry_pb2

from services.common.errors import EngineFailed, InvalidArgument, Unavailable
from services.common.tensors import Array
from services.inference.text import Decoder

Inputs = Mapping[str, Array]
Outputs = Mapping[str, Array]
Crashed = Callable[[registry_pb2.Deployment], None]  # told which version brought its engine down


class ModelRefused(InvalidArgument, reason="MODEL_REFUSED_INPUT"):
    """The tensors fit the signature, but the model's graph does not take them."""


class EngineCrashed(EngineFailed, reason="ENGINE_CRASHED"):
    """The model brought its engine down; the caller is not charged."""


class EngineUnavailable(Unavailable, reason="ENGINE_UNAVAILABLE"):
    """The engine cannot be reached just now; comes with a retry hint."""


class Loaded(Protocol):
    """A model that an engine holds.

    `runs`: how many runs of it go at a time. `ahead`: whether the engine takes the next one while those go, and starts
    it when one has ended. `batches`: whether it puts calls together itself, so that they are handed to it as they come.
    """

    @property
    def runs(self) -> int: ...

    @property
    def ahead(self) -> bool: ...

    @property
    def batches(self) -> bool: ...

    async def run(self, inputs: Inputs, outputs: Sequence[str]) -> Outputs:
        """Runs the model once. Cancelling the task ends the run inside the engine too, where that is possible.

        Raises:
            ModelRefused: the graph does not take these tensors.
            EngineFailed: the run failed.
            EngineUnavailable: the engine is away.
        """
        ...

    async def unload(self) -> None:
        """Frees what the model holds. Runs under way end first."""
        ...


class Engine(Protocol):
    """Holds and runs models."""

    async def load(self, deployment: registry_pb2.Deployment) -> Loaded:
        """Makes a version ready to run. Loading one that is loaded already is harmless.

        Raises:
            EngineFailed: the model cannot be loaded.
            EngineUnavailable: the engine, or what holds the artifact, is away.
        """
        ...

    async def load_decoder(self, deployment: registry_pb2.Deployment) -> Decoder:
        """Like `load`, of a version that goes on with texts."""
        ...

    async def healthy(self) -> bool:
        """Whether it would answer a run now."""
        ...

    async def close(self) -> None:
        """Frees everything."""
        ...

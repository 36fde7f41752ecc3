"""Settings of the registry."""

from services.common.settings import Settings, option


class RegistrySettings(Settings):
    """How Triton is told to serve the models of the repository, and what converts models of other frameworks."""

    triton_kind: str = option("KIND_CPU", "where Triton runs models", pattern="^KIND_(CPU|GPU|AUTO)$")
    triton_instances: int = option(1, "copies of a model that Triton runs side by side, on each device", ge=1)
    triton_threads: int = option(0, "threads inside one run of Triton's; 0: as many as its machine has cores", ge=0)
    triton_slots: int = option(16, "answers that one decoder on Triton makes at a time", ge=1, le=256)
    triton_context: int = option(2048, "most tokens of prompt and answer there, where the model takes as many", ge=16)
    triton_memory_mb: int = option(2048, "keys and values of the answers that it makes", unit="MiB", ge=16)
    converters: str = option("", "Python that has torch or tensorflow, to convert their models; empty: Mercat's own")
    undelete_seconds: float = option(604800.0, "how long a deleted version can be taken back", unit="s", ge=0)

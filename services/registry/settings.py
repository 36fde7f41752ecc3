"""Settings of the registry."""

from services.common.settings import Settings, option


class RegistrySettings(Settings):
    """How Triton is told to serve the models of the repository, and what converts models of other frameworks."""

    triton_kind: str = option("KIND_CPU", "where Triton runs models", pattern="^KIND_(CPU|GPU|AUTO)$")
    triton_instances: int = option(1, "copies of a model that Triton runs side by side, on each device", ge=1)
    triton_threads: int = option(0, "threads inside one run of Triton's; 0: as many as its machine has cores", ge=0)
    converters: str = option("", "Python that has torch or tensorflow, to convert their models; empty: Mercat's own")

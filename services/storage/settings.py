"""Settings of storage."""

from services.common.settings import Settings, option


class StorageSettings(Settings):
    """What the storage service is told by its environment."""

    storage_cache_mb: int = option(
        4096, "artifacts of an object store that are kept on the local disk; 0: none", unit="MiB", ge=0
    )
    storage_collect: float = option(600.0, "how often what no version needs is removed", unit="s", gt=0)
    storage_collect_after: float = option(
        86400.0, "how long an artifact is kept at least after it was stored or asked for", unit="s", gt=0
    )

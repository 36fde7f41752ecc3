"""Settings of storage."""

from services.common.settings import Settings, option


class StorageSettings(Settings):
    """What the storage service is told by its environment."""

    storage_cache_mb: int = option(
        4096, "artifacts of an object store that are kept on the local disk; 0: none", unit="MiB", ge=0
    )

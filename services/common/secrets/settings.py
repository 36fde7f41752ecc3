"""Settings of a service that keeps secrets."""

from services.common.settings import Settings, option


class SealingSettings(Settings):
    """What encrypts them at rest."""

    sealing_keys: str = option(
        "", "keys that encrypt secrets at rest, 32 bytes each in base64, the newest first, separated by commas; "
        "empty: the home's", secret=True,
    )  # fmt: skip
    sealing_transit: str = option(
        "", "key of Vault's transit engine that wraps the keys of accounts instead (VAULT_ADDR, VAULT_TOKEN, …); "
        "empty: the keys above",
    )  # fmt: skip

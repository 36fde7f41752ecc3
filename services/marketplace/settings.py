"""What the marketplace is told."""

from services.common.settings import Settings, option


class MarketplaceSettings(Settings):
    """Of the marketplace service."""

    search_model: str = option(
        "mercat/minilm", "published text encoder (384 numbers) that finds models by meaning; empty: none"
    )

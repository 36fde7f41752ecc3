"""What the marketplace is told."""

from services.common.settings import Settings, option


class MarketplaceSettings(Settings):
    """Of the marketplace service."""

    search_model: str = option(
        "mercat/minilm", "published text encoder (384 numbers) that finds models by meaning; empty: none"
    )
    recommendations_every: float = option(
        600.0, "how often it is looked at which models are called together", unit="s", gt=0
    )

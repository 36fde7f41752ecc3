"""Settings of what tells people and programs that something has happened."""

from pydantic import field_validator

from services.common.egress import Rules
from services.common.secrets.settings import SealingSettings
from services.common.settings import option


class NotificationSettings(SealingSettings):
    """Webhooks, and where they may go."""

    egress_networks: str = option(
        "", "networks beside the public ones that webhooks may reach, on any port, separated by commas: "
        "127.0.0.0/8,::1/128 to try them out; empty: none",
    )  # fmt: skip
    webhook_timeout: float = option(
        15.0, "how long an endpoint has for its answer", unit="seconds", gt=0, le=60
    )  # fmt: skip
    webhook_concurrency: int = option(4, "deliveries to one endpoint at once", ge=1)
    webhook_total_concurrency: int = option(64, "deliveries to all endpoints at once", ge=1)
    webhook_disable_days: float = option(
        5.0, "after how long of nothing but failures an endpoint is disabled", unit="days", gt=0
    )
    webhook_days: int = option(30, "how long events and deliveries are kept", unit="days", ge=4)

    @field_validator("egress_networks")
    @classmethod
    def _networks(cls, value: str) -> str:
        Rules.of(value, https=True)
        return value

"""Settings of billing."""

from pathlib import Path

from services.common.settings import Settings, option


class BillingSettings(Settings):
    """What the platform keeps, and how long a worker may hold money."""

    fee_ppm: int = option(200_000, "the platform's share of each call", unit="millionths", ge=0, le=1_000_000)
    lease_seconds: float = option(20.0, "how long a wallet lease lives without renewal", unit="seconds", ge=5)
    lease_grace_seconds: float = option(10.0, "how long after that it comes back", unit="seconds", ge=1)
    receipt_key_file: Path | None = option(None, "Ed25519 key (PEM) that signs receipts; empty: the home's")
    reconcile_seconds: float = option(
        3600.0, "how often the books of this month and the last one are proven", unit="seconds", ge=10
    )
    payout_hold_days: int = option(7, "how long earnings are held before they are paid out", unit="days", ge=0, le=90)
    payout_minimum: str = option(
        "10", "the least that is paid out", unit="US dollars", pattern=r"^\d{1,6}(\.\d{1,2})?$"
    )
    invoice_retry_days: str = option(
        "1,3,5,7", "after an invoice could not be collected, when it is tried again; then it is given up",
        unit="days, from the first attempt", pattern=r"^\d{1,3}(,\d{1,3})*$",
    )  # fmt: skip
    auto_top_up_seconds: float = option(
        5.0, "how often wallets are looked at for automatic top-ups", unit="seconds", gt=0
    )
    payment_claim_seconds: float = option(
        90.0, "how long the next step of a payment may take; when its process has died, it is taken again then",
        unit="seconds", ge=1,
    )  # fmt: skip
    stripe_secret_key: str = option("", "secret key of Stripe; empty: the sandbox, which charges nobody", secret=True)
    stripe_webhook_secret: str = option(
        "", "signing secrets of Stripe's webhook endpoint, separated by commas while one is replaced", secret=True
    )
    stripe_api_base: str = option("", "where Stripe's API is; empty: Stripe's own address")
    stripe_replay_seconds: float = option(
        300.0, "how often the events are listed that no webhook brought", unit="seconds", ge=1
    )

    @property
    def live(self) -> bool:
        """Whether real money moves: then nobody gets credit for nothing."""
        return self.stripe_secret_key.startswith(("sk_live_", "rk_live_"))

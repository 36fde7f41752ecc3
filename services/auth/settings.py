"""Settings of auth."""

from pathlib import Path

from services.common.settings import Settings, option


class AuthSettings(Settings):
    """How the audit log is signed, and how long it is kept."""

    audit_key_file: Path | None = option(None, "Ed25519 key (PEM) that signs the audit log; empty: the home's")
    audit_head_seconds: float = option(60.0, "how often the ends of the audit log are signed", unit="seconds", gt=0)
    audit_details_days: int = option(
        400, "how long addresses, user agents and what was asked for are kept in the audit log; 0: for ever",
        unit="days", ge=0,
    )  # fmt: skip
    audit_days: int = option(0, "how long entries of the audit log are kept; 0: for ever", unit="days", ge=0)

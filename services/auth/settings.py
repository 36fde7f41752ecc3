"""Settings of auth."""

from pathlib import Path

from services.common.mail.settings import MailSettings
from services.common.secrets.settings import SealingSettings
from services.common.settings import option


class AuthSettings(MailSettings, SealingSettings):
    """How people prove who they are, and how the audit log is signed and kept."""

    verify_email: str = option(
        "auto", "whether publishing and paying need a verified email address: always, never, or auto: when there is an "
        "SMTP server", pattern="^(auto|always|never)$",
    )  # fmt: skip
    leaked_passwords: Path | None = option(
        None, "list of leaked passwords, as Have I Been Pwned gives it: lines of SHA-1 and count, sorted; empty: the "
        "30,000 most used",
    )  # fmt: skip
    identity_providers: str = option(
        "", "who people may sign in with: a JSON list of {id, client_id, client_secret, issuer, name, trusted}; of "
        "google and github the issuer is known", secret=True,
    )  # fmt: skip
    sso_private_networks: bool = option(
        False, "whether the providers of organisations' single sign-on may be in private networks and on this machine"
    )
    dns_server: str = option(
        "", "who is asked for the records that prove domains, ADDRESS:PORT; empty: whom this machine asks",
        pattern=r"^(|[0-9.]+:\d{1,5}|\[[0-9a-f:]+\]:\d{1,5})$",
    )  # fmt: skip
    address_failures: int = option(
        20, "failed sign-ins from one network address before it must wait, longer each time", unit="attempts", ge=1
    )
    audit_key_file: Path | None = option(None, "Ed25519 key (PEM) that signs the audit log; empty: the home's")
    audit_head_seconds: float = option(60.0, "how often the ends of the audit log are signed", unit="seconds", gt=0)
    audit_details_days: int = option(
        400, "how long addresses, user agents and what was asked for are kept in the audit log; 0: for ever",
        unit="days", ge=0,
    )  # fmt: skip
    terms_version: str = option("", "version of the terms that people agree to when they sign up; empty: none")
    privacy_version: str = option("", "version of the privacy notice that they agree to; empty: none")
    sign_in_failure_hours: int = option(
        24, "how long failed sign-ins are counted and kept, after the last one", unit="hours", ge=1
    )
    export_hours: int = option(
        72, "how long people can download an export of their data", unit="hours", ge=1
    )  # fmt: skip
    audit_days: int = option(0, "how long entries of the audit log are kept; 0: for ever", unit="days", ge=0)

    @property
    def demands_verification(self) -> bool:
        return self.verify_email == "always" or (self.verify_email == "auto" and bool(self.smtp_host))

    def is_known(self, email: str) -> bool:
        """Whether an address needs no verification."""
        return email.lower() in {known.strip().lower() for known in self.verified_emails.split(",")}

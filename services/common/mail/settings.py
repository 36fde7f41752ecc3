"""Settings of a service that sends mail."""

from services.common.settings import Settings, option


class MailSettings(Settings):
    """How mail leaves."""

    smtp_host: str = option("", "SMTP server that mail goes through; empty: into the folder mail of the home")
    smtp_port: int = option(587, "its port", ge=1, le=65535)
    smtp_tls: str = option(
        "starttls", "how it is spoken to: starttls, tls from the first byte, or none", pattern="^(starttls|tls|none)$"
    )
    smtp_user: str = option("", "user name there; empty: without signing in")
    smtp_password: str = option("", "password there", secret=True)
    mail_from: str = option("Mercat <no-reply@mercat.localhost>", "sender of all mail", pattern=".*@.*")

"""TLS between Mercat's own processes: each shows a certificate of their authority, and hears nobody without one."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from services.common.settings import Settings, SettingsError

if TYPE_CHECKING:
    import grpc

NAME = "mercat.internal"  # what all their certificates are for, wherever they listen
# What a gRPC channel is told besides its credentials: the address it goes to is nobody's name.
OVERRIDE = ("grpc.ssl_target_name_override", NAME)


@dataclass(frozen=True)
class Mutual:
    """Files, PEM: who is trusted, and what is shown."""

    ca: Path
    certificate: Path
    key: Path

    @classmethod
    def of(cls, settings: Settings) -> "Mutual | None":
        """None where they talk without TLS. Raises SettingsError for a half of it."""
        files = (settings.internal_ca, settings.internal_certificate, settings.internal_key)
        if not any(files):
            return None
        ca, certificate, key = files
        if ca is None or certificate is None or key is None:
            raise SettingsError(
                "MERCAT_INTERNAL_CA, MERCAT_INTERNAL_CERTIFICATE and MERCAT_INTERNAL_KEY belong together."
            )
        return cls(ca, certificate, key)

    def server(self) -> ssl.SSLContext:
        """For who listens. Raises OSError or ssl.SSLError for files that cannot be read."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.ca))
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.certificate, self.key)
        context.set_alpn_protocols(["h2"])
        return context

    def client(self) -> ssl.SSLContext:
        """For who connects, to `NAME`."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.load_cert_chain(self.certificate, self.key)
        return context

    def credentials(self) -> "grpc.ChannelCredentials":
        """For channels, with `OVERRIDE` among their options."""
        import grpc  # which the command line does without where it only looks at a home

        return grpc.ssl_channel_credentials(self.ca.read_bytes(), self.key.read_bytes(), self.certificate.read_bytes())

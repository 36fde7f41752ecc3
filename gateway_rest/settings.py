"""Settings of the web edge."""

from __future__ import annotations

from services.common.settings import Settings, option


class GatewaySettings(Settings):
    """Besides these: `MERCAT_GRPC`, the front door that calls go to, else `MERCAT_CONTROL` and the workers."""

    gateway_workers: str = option(
        "", "host:port of each inference worker, separated by commas; used without a front door; empty: the control's"
    )
    gateway_max_json_bytes: int = option(16 * 1024 * 1024, "largest JSON body of a request", unit="bytes", ge=1024)
    gateway_timeout: float = option(60.0, "longest unary call when the client asks for none", unit="s", gt=0)
    gateway_cors_origins: str = option("*", "origins whose pages may call, separated by commas; empty: none")
    gateway_behind_proxy: bool = option(
        False, "requests come through a proxy that appends the client's address to x-forwarded-for"
    )

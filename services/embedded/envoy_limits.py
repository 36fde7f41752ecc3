"""How much one network address may ask of the front door, before anything else looks at it."""

from typing import Any

_TYPE = "type.googleapis.com/envoy."
_BURST = 4  # seconds' worth that an address may ask at once after it was quiet
_ADDRESSES = 100_000  # that are counted at a time; the one not seen for longest is forgotten
_MOST = 2**32 - 1
# Of IPv6 a household has a /64, and all addresses in it.
_V4_BITS, _V6_BITS = 32, 64


def by_address(rate: int) -> dict[str, Any] | None:
    """The filter that lets an address begin `rate` requests in a second; None where any number is allowed."""
    if not rate:
        return None
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    return {
        "name": "envoy.filters.http.local_ratelimit",
        "typed_config": {
            "@type": _TYPE + "extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            "stat_prefix": "by_address",
            "filter_enabled": {"runtime_key": "mercat.by_address.enabled", **always},
            "filter_enforced": {"runtime_key": "mercat.by_address.enforced", **always},
            # Of all together: overload has limits of its own.
            "token_bucket": {"max_tokens": _MOST, "tokens_per_fill": _MOST, "fill_interval": "1s"},
            "rate_limits": [
                {
                    "actions": [
                        {
                            "masked_remote_address": {
                                "v4_prefix_mask_len": _V4_BITS,
                                "v6_prefix_mask_len": _V6_BITS,
                            }
                        }
                    ]
                }
            ],
            "descriptors": [
                {
                    "entries": [{"key": "masked_remote_address"}],
                    "token_bucket": {"max_tokens": _BURST * rate, "tokens_per_fill": rate, "fill_interval": "1s"},
                }
            ],
            "max_dynamic_descriptors": _ADDRESSES,
            "rate_limited_as_resource_exhausted": True,
            "response_headers_to_add": [{"header": {"key": "retry-after", "value": "1"}}],
        },
    }

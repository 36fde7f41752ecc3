"""Settings of usage."""

from services.common.settings import Settings, option


class UsageSettings(Settings):
    """How long single calls are remembered; what they sum up to is kept for ever."""

    usage_retention_months: int = option(
        0, "whole months before this one of which the records of calls are kept; 0: all", unit="months", ge=0, le=1200
    )

"""How long calls took, as counts that can be added up: buckets that grow by a tenth (the logarithmic histogram of
https://arxiv.org/abs/1908.10693), so that a quantile is off by 5 % at most, however many calls there were."""

import math
from collections.abc import Mapping

_GROWTH = math.log(1.1)


def bucket(latency_us: int) -> int:
    """The number of the bucket that a latency counts in, microseconds."""
    return int(math.log(latency_us) / _GROWTH) if latency_us > 1 else 0


def quantile(counts: Mapping[int, int], share: float) -> int:
    """The latency that a share of the calls stayed at or under, microseconds; 0 for no calls."""
    total = sum(counts.values())
    if not total:
        return 0
    left = max(1, math.ceil(total * share))
    for number in sorted(counts):
        left -= counts[number]
        if left <= 0:
            break
    return round(math.exp((number + 0.5) * _GROWTH))

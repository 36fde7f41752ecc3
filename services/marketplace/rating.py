"""A rating that sorts: with few reviews it says little. Pure."""

_WEIGHT, _EXPECTED = 5, 3.5  # reviews that every model is taken to have had, and their mean


def weighted(total: int, count: int) -> float:
    """The mean of ratings that add up to `total` and of those that every model is taken to have had (a Bayesian
    average); 0 for no review."""
    return (total + _WEIGHT * _EXPECTED) / (count + _WEIGHT) if count else 0.0

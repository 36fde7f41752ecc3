"""Side-by-side measurements: each figure beside its floor or its peer, in one run, as medians and ratios."""

"""Side-by-side measurements: each figure beside its floor or its peer, in one run, as medians and ratios of rounds that
take turns. `python -m benchmarks` runs all of them, writes RESULTS.md and draws it; a group's name runs that group."""

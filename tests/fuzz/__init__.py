"""Random bytes for every parser of what comes from outside: `python -m tests.fuzz TARGET --runs 1000000`."""

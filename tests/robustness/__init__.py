"""What the platform must survive: `oracle` judges, `traffic` calls, the tests break things meanwhile. Every random run
prints its seed; `MERCAT_TEST_SEED` replays it."""

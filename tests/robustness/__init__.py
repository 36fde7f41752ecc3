"""What the platform must survive: `oracle` judges, `traffic` calls, the tests break things meanwhile.

Of each case `make test` runs a small part. `make robustness` runs the tests marked `case` with 20,000 calls each and
everything that is done to them (`--calls 20000`); `--minutes 22` makes the long run so long. A random test prints its
seed, and `--seed` replays it. Which test decides which case:

1, 2. usage consumer killed over and over, and both at each step: test_money
3, 4. PostgreSQL and NATS killed: test_servers, where the long run kills whatever there is
5. usage published again after the stream was rebuilt: test_money
6. the outbox, whatever commits last: integration/billing/test_outbox
7, 8, 9. a paused consumer, one key at once, credit for ten calls: test_money
10. streams left half-way: test_streams
11. Stripe's events, out of order, forged and old: integration/payments/test_stripe
12. rows edited by a superuser: test_ledger
13, 14, 15, 17. Redis gone, a worker gone, three times the load, a rolling restart: test_redis, test_workers,
   test_overload, test_restart
18. the disk full: test_disk
20, 21, 22. tensors and artifacts that lie: test_tensors, test_artifacts"""

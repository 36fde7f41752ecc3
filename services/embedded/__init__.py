"""Runs Mercat on one machine: PostgreSQL, Valkey, NATS and Envoy from their packages, and Mercat's own processes,
each supervised. Not used where an installation brings its own servers and an orchestrator."""

-- Tables that every service's schema has.

-- Events written in the transaction that caused them, published by the relay.
CREATE TABLE outbox (
    id text PRIMARY KEY,
    subject text NOT NULL,
    payload bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Events handled, by consumer: an event's effect and this row are one transaction.
CREATE TABLE inbox (
    event_id text NOT NULL,
    consumer text NOT NULL,
    handled_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (event_id, consumer)
);

-- First answers of calls that carried an idempotency key, kept for 24 hours. The key itself is not kept: its hash finds
-- the row, and the answer is encrypted under it, since it may hold a secret that is shown once.
CREATE TABLE idempotency_keys (
    key_hash bytea PRIMARY KEY,
    body_hash bytea NOT NULL,
    request_id text NOT NULL,
    answer bytea,
    locked_until timestamptz NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX idempotency_keys_created ON idempotency_keys (created_at);

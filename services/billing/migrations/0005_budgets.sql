-- The most that an organisation, one of its keys or one model may cost it in a period.
CREATE TABLE budgets (
    id text PRIMARY KEY,
    org_id text NOT NULL,
    name text NOT NULL,
    key_id text NOT NULL,   -- empty: all keys
    model_id text NOT NULL, -- empty: all models
    model text NOT NULL,
    period smallint NOT NULL,
    limit_nanos bigint NOT NULL CHECK (limit_nanos > 0),
    notify_only boolean NOT NULL,
    thresholds smallint[] NOT NULL, -- percents of the limit
    created_at timestamptz NOT NULL,
    UNIQUE (org_id, name)
);

-- Thresholds that were told: once a period, and again when the limit is another.
CREATE TABLE budget_notices (
    budget_id text NOT NULL REFERENCES budgets (id) ON DELETE CASCADE,
    period_start date NOT NULL,
    limit_nanos bigint NOT NULL,
    percent smallint NOT NULL,
    reached_at timestamptz NOT NULL,
    PRIMARY KEY (budget_id, period_start, limit_nanos, percent)
);

-- What was posted for calls. A call's day is that of its lease: when its money was set aside.
CREATE TABLE spending (
    org_id text NOT NULL,
    day date NOT NULL, -- UTC
    key_id text NOT NULL,
    model_id text NOT NULL,
    spent bigint NOT NULL,
    PRIMARY KEY (org_id, day, key_id, model_id)
);
-- From when on all of it is known.
CREATE TABLE spending_known (since date NOT NULL);
INSERT INTO spending_known SELECT CASE WHEN EXISTS (SELECT FROM postings)
    THEN (now() AT TIME ZONE 'UTC')::date + 1 ELSE '0001-01-01'::date END;

-- Whose calls may spend from a lease; empty: all of the organisation's.
ALTER TABLE leases
    ADD COLUMN key_id text NOT NULL DEFAULT '', ADD COLUMN model_id text NOT NULL DEFAULT '',
    ADD COLUMN day date GENERATED ALWAYS AS ((created_at AT TIME ZONE 'UTC')::date) STORED;

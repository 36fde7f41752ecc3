-- Ends of quotas that were told: once a period, and again when the end is another.
CREATE TABLE quota_notices (
    org_id text NOT NULL,
    quota text NOT NULL,
    key_id text NOT NULL,
    model text NOT NULL,
    hard boolean NOT NULL,
    limit_calls bigint NOT NULL,
    reset_time timestamptz NOT NULL,
    PRIMARY KEY (org_id, quota, key_id, model, reset_time, hard, limit_calls)
);
CREATE INDEX quota_notices_reset ON quota_notices (reset_time);

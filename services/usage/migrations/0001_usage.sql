-- Every successful call, once. `timestamp` is the time inside the request id, to the millisecond, so that the unique key,
-- which must hold the partition key, is as good as one on request_id alone.
CREATE TABLE usage_records (
    id text NOT NULL,
    request_id text NOT NULL COLLATE "C",
    timestamp timestamptz NOT NULL,
    org_id text NOT NULL,
    user_id text NOT NULL,
    api_key_id text NOT NULL,
    model_id text NOT NULL,
    model text NOT NULL,
    version text NOT NULL,
    publisher_org_id text NOT NULL,
    tokens_used bigint NOT NULL,
    units jsonb NOT NULL,
    price_id text NOT NULL,
    cost bigint NOT NULL, -- nanos
    latency_ms double precision NOT NULL,
    latency_us bigint NOT NULL,
    status_code integer NOT NULL,
    region text NOT NULL,
    test boolean NOT NULL,
    lease_id text NOT NULL,
    UNIQUE (request_id, timestamp)
) PARTITION BY RANGE (timestamp);
CREATE INDEX usage_records_org ON usage_records (org_id, request_id DESC);
CREATE INDEX usage_records_publisher ON usage_records (publisher_org_id, request_id DESC);
CREATE TABLE usage_records_rest PARTITION OF usage_records DEFAULT;

-- What the storefront shows, composed from registry and billing; the search index is built from these rows.
CREATE TABLE listings (
    model text PRIMARY KEY,
    document bytea NOT NULL, -- mercat.marketplace.v1.Listing without statistics
    total_requests bigint NOT NULL DEFAULT 0,
    latency_us_sum bigint NOT NULL DEFAULT 0,
    changed_at timestamptz NOT NULL
);

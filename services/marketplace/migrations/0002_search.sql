-- pgvector, which other schemas may use too.
CREATE EXTENSION IF NOT EXISTS vector SCHEMA public;

ALTER TABLE listings
    ADD COLUMN counted_at timestamptz, -- when calls were last added
    ADD COLUMN recent_requests bigint NOT NULL DEFAULT 0, -- of the last 30 days, and what they took
    ADD COLUMN p50_us bigint NOT NULL DEFAULT 0,
    ADD COLUMN p95_us bigint NOT NULL DEFAULT 0,
    ADD COLUMN rating_sum bigint NOT NULL DEFAULT 0, -- of the reviews that are shown
    ADD COLUMN review_count bigint NOT NULL DEFAULT 0,
    ADD COLUMN meaning bytea NOT NULL DEFAULT ''; -- digest of what is embedded

-- Which transaction changed a listing last, or took it away: every process follows this with its own index.
CREATE TABLE listing_changes (
    model text PRIMARY KEY,
    changed_by xid8 NOT NULL
);
CREATE INDEX listing_changes_by ON listing_changes (changed_by);

-- How many calls of a day took how long, by bucket of services/common/latencies.py.
CREATE TABLE model_latencies (
    model text NOT NULL,
    day date NOT NULL,
    bucket smallint NOT NULL,
    calls bigint NOT NULL,
    PRIMARY KEY (model, day, bucket)
);
CREATE INDEX model_latencies_day ON model_latencies (day);

CREATE TABLE embeddings (
    model text PRIMARY KEY REFERENCES listings ON DELETE CASCADE ON UPDATE CASCADE,
    encoder text NOT NULL, -- publisher/model@version
    meaning bytea NOT NULL, -- of the listing when it was embedded
    vector public.vector(384) NOT NULL
);
CREATE INDEX embeddings_vector ON embeddings USING hnsw (vector public.vector_cosine_ops);

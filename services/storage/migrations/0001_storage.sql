CREATE TABLE uploads (
    id text PRIMARY KEY,
    org_id text NOT NULL,
    filename text NOT NULL,
    size_bytes bigint NOT NULL,
    digest text NOT NULL,
    complete boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX uploads_expiry ON uploads (expires_at);

CREATE TABLE artifacts (
    digest text PRIMARY KEY,
    size_bytes bigint NOT NULL,
    created_at timestamptz NOT NULL
);

-- Who has uploaded these bytes; the same bytes of two organisations are stored once.
CREATE TABLE artifact_owners (
    digest text NOT NULL REFERENCES artifacts (digest),
    org_id text NOT NULL,
    filename text NOT NULL,
    PRIMARY KEY (digest, org_id)
);

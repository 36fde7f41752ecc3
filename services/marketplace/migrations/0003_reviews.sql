-- What an organisation says of a version, once. What it said before is in review_edits.
CREATE TABLE reviews (
    id text PRIMARY KEY COLLATE "C",
    model text NOT NULL,
    version text NOT NULL,
    org_id text NOT NULL,
    user_id text NOT NULL, -- who wrote it last
    author text NOT NULL, -- the organisation's handle
    rating smallint NOT NULL CHECK (rating BETWEEN 1 AND 5),
    comment text NOT NULL,
    edits integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    reply text NOT NULL DEFAULT '',
    replied_at timestamptz,
    hidden_at timestamptz,
    hidden_reason text NOT NULL DEFAULT '',
    UNIQUE (org_id, model, version)
);
CREATE INDEX reviews_model ON reviews (model, id DESC);

CREATE TABLE review_edits (
    review_id text NOT NULL REFERENCES reviews ON DELETE CASCADE,
    number integer NOT NULL,
    rating smallint NOT NULL,
    comment text NOT NULL,
    written_at timestamptz NOT NULL,
    PRIMARY KEY (review_id, number)
);

CREATE TABLE review_reports (
    id text PRIMARY KEY COLLATE "C",
    review_id text NOT NULL REFERENCES reviews ON DELETE CASCADE,
    org_id text NOT NULL,
    reason text NOT NULL,
    created_at timestamptz NOT NULL,
    decided_at timestamptz,
    UNIQUE (review_id, org_id)
);
CREATE INDEX review_reports_open ON review_reports (id) WHERE decided_at IS NULL;

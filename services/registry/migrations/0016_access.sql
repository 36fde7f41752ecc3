-- How access to a gated model is had: 1 AUTOMATIC, 2 MANUAL. A digest that is empty: there are no terms.
CREATE TABLE gates (
    model_id text PRIMARY KEY REFERENCES models (id),
    approval smallint NOT NULL CHECK (approval IN (1, 2)),
    terms_digest text NOT NULL
);

-- All terms that a model ever had, so that it can be said what was accepted.
CREATE TABLE terms (
    model_id text NOT NULL REFERENCES models (id),
    digest text NOT NULL,
    version text NOT NULL,
    url text NOT NULL,
    text text NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (model_id, digest)
);

-- What organisations have of a gated model: 1 REQUESTED, 2 GRANTED, 3 DENIED, 4 REVOKED.
CREATE TABLE accesses (
    id text PRIMARY KEY COLLATE "C",
    model_id text NOT NULL REFERENCES models (id),
    org_id text NOT NULL,
    organisation text NOT NULL, -- its handle
    state smallint NOT NULL CHECK (state BETWEEN 1 AND 4),
    message text NOT NULL, -- of who asks
    reason text NOT NULL DEFAULT '', -- of who decides
    requested_at timestamptz NOT NULL,
    decided_at timestamptz,
    UNIQUE (model_id, org_id)
);
CREATE INDEX accesses_org ON accesses (org_id, id DESC);

-- Who accepted which terms for which organisation. Never changed but when somebody is erased.
CREATE TABLE acceptances (
    model_id text NOT NULL,
    org_id text NOT NULL,
    digest text NOT NULL,
    user_id text NOT NULL,
    accepted_at timestamptz NOT NULL,
    PRIMARY KEY (model_id, org_id, digest),
    FOREIGN KEY (model_id, digest) REFERENCES terms (model_id, digest)
);

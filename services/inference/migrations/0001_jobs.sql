CREATE TABLE jobs (
    id text PRIMARY KEY,
    org_id text NOT NULL,
    user_id text NOT NULL,
    key_id text NOT NULL,
    -- 'creating': the request is being stored, and nobody sees the job yet.
    state text NOT NULL CHECK (state IN ('creating', 'queued', 'running', 'succeeded', 'failed', 'cancelled', 'expired')),
    model text NOT NULL,
    entries integer NOT NULL,
    -- The outcomes of entries 0 to done - 1 are kept; where, job_parts says.
    done integer NOT NULL DEFAULT 0,
    failed integer NOT NULL DEFAULT 0,
    cost bigint NOT NULL DEFAULT 0,
    -- The stored request's name.
    body text NOT NULL DEFAULT '',
    -- Who runs it: a new id with each claim, so that one who was away too long can write nothing any more.
    claim text NOT NULL DEFAULT '',
    claimed_until timestamptz,
    -- Claims since an outcome was last kept.
    attempts integer NOT NULL DEFAULT 0,
    -- The first failed entry's google.rpc.Status, then why the job failed.
    error bytea,
    created_at timestamptz NOT NULL,
    started_at timestamptz,
    ended_at timestamptz,
    deadline timestamptz NOT NULL,
    cancelled_at timestamptz,
    -- When the job is forgotten: set while it is being made, and once it has ended.
    expires_at timestamptz
);
CREATE INDEX jobs_of_org ON jobs (org_id, id DESC);
CREATE INDEX jobs_unfinished ON jobs (state, claimed_until) WHERE state IN ('queued', 'running');
CREATE INDEX jobs_expiry ON jobs (expires_at) WHERE expires_at IS NOT NULL;

-- Stored outcomes of entries `first` to `last`.
CREATE TABLE job_parts (
    job_id text NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    first integer NOT NULL,
    last integer NOT NULL,
    object text NOT NULL,
    PRIMARY KEY (job_id, first)
);

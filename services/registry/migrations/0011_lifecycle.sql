-- Until when a deprecated version (state 7) answers, what takes its place, and why; that one was taken back beside its
-- state, by whom (owner or admin); and the state that a quarantined one (8) goes back to.
ALTER TABLE versions
    ADD COLUMN sunset_at timestamptz,
    ADD COLUMN successor text NOT NULL DEFAULT '',
    ADD COLUMN deprecation_reason text NOT NULL DEFAULT '',
    ADD COLUMN yanked_at timestamptz,
    ADD COLUMN yanked_by text NOT NULL DEFAULT '',
    ADD COLUMN yank_reason text NOT NULL DEFAULT '',
    ADD COLUMN quarantined_from smallint;
CREATE INDEX versions_sunset ON versions (sunset_at) WHERE state = 7;

-- How reviews ended.
CREATE TABLE version_decisions (
    id text PRIMARY KEY,
    version_id text NOT NULL REFERENCES versions (id),
    user_id text NOT NULL, -- the reviewer
    approved boolean NOT NULL,
    reason text NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX version_decisions_version ON version_decisions (version_id, id DESC);

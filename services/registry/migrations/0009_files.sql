-- Versions that their owners gave up (state 9): since when, and the state that they go back to.
ALTER TABLE versions ADD COLUMN deleted_at timestamptz, ADD COLUMN deleted_from smallint;

-- Artifacts that belong to a version beside its own; what they are there for, its document says.
CREATE TABLE version_files (
    version_id text NOT NULL REFERENCES versions (id),
    digest text NOT NULL,
    PRIMARY KEY (version_id, digest)
);
CREATE INDEX version_files_digest ON version_files (digest);
CREATE INDEX versions_digest ON versions (digest);
CREATE INDEX versions_served_digest ON versions (served_digest) WHERE served_digest <> '';

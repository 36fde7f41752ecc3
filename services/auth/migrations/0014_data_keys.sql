-- Keys that seal what belongs to one owner (a person or an organisation), each wrapped under the installation's, whose
-- name is `under`. To delete an owner's is to make unreadable what they sealed.
CREATE TABLE data_keys (
    owner_id text NOT NULL,
    version integer NOT NULL,
    wrapped bytea NOT NULL,
    under text NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (owner_id, version)
);
CREATE INDEX data_keys_under ON data_keys (under);

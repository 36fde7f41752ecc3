-- What checks signatures of a key's calls: a public key, or an encrypted secret.
CREATE TABLE signing_keys (
    id text PRIMARY KEY,
    key_id text NOT NULL REFERENCES api_keys (id),
    algorithm smallint NOT NULL,
    public_key bytea,
    sealed_secret bytea,
    created_at timestamptz NOT NULL,
    CHECK (num_nonnulls(public_key, sealed_secret) = 1)
);
CREATE INDEX signing_keys_key ON signing_keys (key_id, id DESC);

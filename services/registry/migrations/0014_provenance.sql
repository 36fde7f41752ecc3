-- Public halves of the keys that publishers sign attestations with.
CREATE TABLE publisher_keys (
    org_id text NOT NULL,
    fingerprint text NOT NULL, -- sha256:… of the 32 bytes
    publisher text NOT NULL, -- the organisation's handle
    name text NOT NULL,
    public_key text NOT NULL, -- PEM
    created_at timestamptz NOT NULL,
    revoked_at timestamptz,
    PRIMARY KEY (org_id, fingerprint)
);
CREATE INDEX publisher_keys_publisher ON publisher_keys (publisher);

-- What cards say that a model was made from.
CREATE TABLE lineage (
    model_id text NOT NULL REFERENCES models (id),
    version text NOT NULL, -- whose card says it; empty: the model's
    kind smallint NOT NULL, -- 1 a model, 2 a data set
    name text NOT NULL, -- as the card has it
    base_model_id text REFERENCES models (id), -- of a model that is one of Mercat's
    PRIMARY KEY (model_id, version, kind, name)
);
CREATE INDEX lineage_base ON lineage (base_model_id) WHERE base_model_id IS NOT NULL;

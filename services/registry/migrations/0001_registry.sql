CREATE TABLE models (
    id text PRIMARY KEY,
    org_id text NOT NULL,
    publisher text NOT NULL,
    name text NOT NULL,
    display_name text NOT NULL,
    summary text NOT NULL,
    description text NOT NULL,
    category text NOT NULL,
    task text NOT NULL,
    tags text[] NOT NULL,
    license text NOT NULL,
    homepage text NOT NULL,
    latest_version text NOT NULL DEFAULT '',
    revision bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    published_at timestamptz,
    UNIQUE (publisher, name)
);
CREATE INDEX models_org ON models (org_id, id DESC);
CREATE INDEX models_published ON models (id DESC) WHERE published_at IS NOT NULL;

CREATE TABLE versions (
    id text PRIMARY KEY,
    model_id text NOT NULL REFERENCES models (id),
    version text NOT NULL,
    state smallint NOT NULL,
    framework text NOT NULL,
    digest text NOT NULL,
    size_bytes bigint NOT NULL,
    -- What the publisher declared, then what the graph says: mercat.common.v1.Signature.
    signature bytea NOT NULL,
    -- mercat.registry.v1.Version with the publisher's settings, samples and labels only.
    document bytea NOT NULL,
    release_notes text NOT NULL,
    findings jsonb NOT NULL DEFAULT '[]',
    review_note text NOT NULL DEFAULT '',
    measured_load_us bigint NOT NULL DEFAULT 0,
    measured_run_us bigint NOT NULL DEFAULT 0,
    measured_memory_bytes bigint NOT NULL DEFAULT 0,
    claimed_until timestamptz,
    created_at timestamptz NOT NULL,
    submitted_at timestamptz,
    published_at timestamptz,
    deprecated_at timestamptz,
    UNIQUE (model_id, version)
);
CREATE INDEX versions_state ON versions (state, id) WHERE state IN (1, 4);

CREATE TABLE aliases (
    model_id text NOT NULL REFERENCES models (id),
    alias text NOT NULL,
    version text NOT NULL,
    PRIMARY KEY (model_id, alias),
    FOREIGN KEY (model_id, version) REFERENCES versions (model_id, version)
);

-- What has passed validation never changes again; its state moves on.
CREATE FUNCTION keep_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state <> 1 AND (OLD.digest, OLD.signature, OLD.document, OLD.version, OLD.model_id, OLD.framework)
        IS DISTINCT FROM (NEW.digest, NEW.signature, NEW.document, NEW.version, NEW.model_id, NEW.framework) THEN
        RAISE EXCEPTION 'version % is immutable', OLD.id;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_version BEFORE UPDATE ON versions FOR EACH ROW EXECUTE FUNCTION keep_version();

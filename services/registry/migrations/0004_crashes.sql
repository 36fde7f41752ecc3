-- Engines that versions brought down, each counted once.
CREATE TABLE crashes (
    id text PRIMARY KEY,
    version_id text NOT NULL REFERENCES versions (id),
    worker_id text NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX crashes_version ON crashes (version_id, created_at);

-- What a version did in service is added to what validation found when it is taken out of service (state 8).
CREATE OR REPLACE FUNCTION keep_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.id, OLD.model_id, OLD.version, OLD.framework, OLD.digest, OLD.size_bytes, OLD.document, OLD.release_notes,
            OLD.created_at)
        IS DISTINCT FROM (NEW.id, NEW.model_id, NEW.version, NEW.framework, NEW.digest, NEW.size_bytes, NEW.document,
            NEW.release_notes, NEW.created_at)
        OR OLD.state <> 1 AND (OLD.signature IS DISTINCT FROM NEW.signature
            OR OLD.findings IS DISTINCT FROM NEW.findings AND (OLD.state <> 8 OR NEW.state <> 8)) THEN
        RAISE EXCEPTION 'version % is immutable', OLD.id;
    END IF;
    RETURN NEW;
END $$;

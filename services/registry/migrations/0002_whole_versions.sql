-- All that a publisher gave is kept as it was, not only what a worker loads.
CREATE OR REPLACE FUNCTION keep_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.id, OLD.model_id, OLD.version, OLD.framework, OLD.digest, OLD.size_bytes, OLD.document, OLD.release_notes,
            OLD.created_at)
        IS DISTINCT FROM (NEW.id, NEW.model_id, NEW.version, NEW.framework, NEW.digest, NEW.size_bytes, NEW.document,
            NEW.release_notes, NEW.created_at)
        -- Validation, and nothing after it, replaces what was declared by what the graph says.
        OR OLD.state <> 1 AND (OLD.signature, OLD.findings) IS DISTINCT FROM (NEW.signature, NEW.findings) THEN
        RAISE EXCEPTION 'version % is immutable', OLD.id;
    END IF;
    RETURN NEW;
END $$;

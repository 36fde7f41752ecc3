-- What a version is to text calls (mercat.registry.v1.TextModel, serialized), empty where it is nothing; and what
-- validation made of an artifact that cannot be loaded as it is.
ALTER TABLE versions ADD COLUMN text bytea NOT NULL DEFAULT '', ADD COLUMN served_digest text NOT NULL DEFAULT '',
    ADD COLUMN served_size_bytes bigint NOT NULL DEFAULT 0;

-- Validation says what nobody declared, and what it found and made; nothing after it changes that.
CREATE OR REPLACE FUNCTION keep_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.id, OLD.model_id, OLD.version, OLD.digest, OLD.size_bytes, OLD.document, OLD.release_notes, OLD.created_at)
        IS DISTINCT FROM (NEW.id, NEW.model_id, NEW.version, NEW.digest, NEW.size_bytes, NEW.document,
            NEW.release_notes, NEW.created_at)
        OR OLD.framework <> NEW.framework AND (OLD.state <> 1 OR OLD.framework <> '')
        OR OLD.state <> 1 AND ((OLD.signature, OLD.text, OLD.served_digest, OLD.served_size_bytes)
            IS DISTINCT FROM (NEW.signature, NEW.text, NEW.served_digest, NEW.served_size_bytes)
            OR OLD.findings IS DISTINCT FROM NEW.findings AND (OLD.state <> 8 OR NEW.state <> 8)) THEN
        RAISE EXCEPTION 'version % is immutable', OLD.id;
    END IF;
    RETURN NEW;
END $$;

-- The how-manieth of its model a version is: its number in a model repository, which knows whole numbers only.
ALTER TABLE models ADD COLUMN version_count bigint NOT NULL DEFAULT 0;
ALTER TABLE versions ADD COLUMN number bigint;
UPDATE versions v SET number = n.number
FROM (SELECT id, row_number() OVER (PARTITION BY model_id ORDER BY id) AS number FROM versions) n WHERE n.id = v.id;
UPDATE models m SET version_count = (SELECT count(*) FROM versions v WHERE v.model_id = m.id);
ALTER TABLE versions ALTER COLUMN number SET NOT NULL, ADD UNIQUE (model_id, number);

CREATE FUNCTION keep_version_number() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'version % is immutable', OLD.id;
END $$;
CREATE TRIGGER keep_version_number BEFORE UPDATE ON versions FOR EACH ROW WHEN (OLD.number IS DISTINCT FROM NEW.number)
EXECUTE FUNCTION keep_version_number();

-- What each of a version's samples gave when validation ran it: replies as JSON texts, in their order. NULL: they were not
-- run, or one failed.
ALTER TABLE versions ADD COLUMN sample_replies jsonb;
CREATE TRIGGER keep_version_samples BEFORE UPDATE ON versions FOR EACH ROW
WHEN (OLD.state <> 1 AND OLD.sample_replies IS DISTINCT FROM NEW.sample_replies) EXECUTE FUNCTION keep_version_number();

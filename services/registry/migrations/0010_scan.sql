-- What validation saw in a graph (mercat.registry.v1.Scan, serialized); empty where it saw none.
ALTER TABLE versions ADD COLUMN scan bytea NOT NULL DEFAULT '';
CREATE TRIGGER keep_version_scan BEFORE UPDATE ON versions FOR EACH ROW
WHEN (OLD.state <> 1 AND OLD.scan IS DISTINCT FROM NEW.scan) EXECUTE FUNCTION keep_version_number();

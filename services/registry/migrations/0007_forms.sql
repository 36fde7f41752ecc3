-- How the artifact of another framework is written down (torchscript, torch-export or saved-model), as validation saw it.
ALTER TABLE versions ADD COLUMN form text NOT NULL DEFAULT '';
CREATE TRIGGER keep_version_form BEFORE UPDATE ON versions FOR EACH ROW
WHEN (OLD.state <> 1 AND OLD.form IS DISTINCT FROM NEW.form) EXECUTE FUNCTION keep_version_number();

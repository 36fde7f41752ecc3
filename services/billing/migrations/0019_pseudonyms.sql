-- Books are kept when a publisher is erased. The handle in the names of their models becomes a pseudonym, and that is all
-- that may change in a row that is immutable: what was bought, when and for how much stays as it was.
CREATE FUNCTION immutable_but_names() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    old_handle text := split_part(OLD.model, '/', 1);
    new_handle text := split_part(NEW.model, '/', 1);
    renamed jsonb := to_jsonb(OLD) || jsonb_build_object('model', NEW.model);
BEGIN
    IF old_handle <> '' AND new_handle LIKE 'deleted-%' AND NEW.model = new_handle || substr(OLD.model, length(old_handle) + 1) THEN
        IF renamed ? 'description' THEN
            renamed := renamed || jsonb_build_object(
                'description', replace(renamed ->> 'description', old_handle || '/', new_handle || '/'));
        END IF;
        IF to_jsonb(NEW) = renamed THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'the books are immutable: correct by a posting of its own';
END $$;

DROP TRIGGER immutable ON prices;
CREATE TRIGGER immutable BEFORE DELETE ON prices FOR EACH ROW EXECUTE FUNCTION immutable();
CREATE TRIGGER immutable_but_names BEFORE UPDATE ON prices FOR EACH ROW EXECUTE FUNCTION immutable_but_names();
DROP TRIGGER immutable ON invoice_lines;
CREATE TRIGGER immutable BEFORE DELETE ON invoice_lines FOR EACH ROW EXECUTE FUNCTION immutable();
CREATE TRIGGER immutable_but_names BEFORE UPDATE ON invoice_lines FOR EACH ROW EXECUTE FUNCTION immutable_but_names();
DROP TRIGGER immutable ON payout_lines;
CREATE TRIGGER immutable BEFORE DELETE ON payout_lines FOR EACH ROW EXECUTE FUNCTION immutable();
CREATE TRIGGER immutable_but_names BEFORE UPDATE ON payout_lines FOR EACH ROW EXECUTE FUNCTION immutable_but_names();

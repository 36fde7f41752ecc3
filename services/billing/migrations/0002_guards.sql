-- What no code path may do, refused by the database as well.

-- Entries come in statements that balance: a statement for the whole batch, so one check for all of it.
CREATE FUNCTION balanced() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    wrong text;
BEGIN
    SELECT e.posting_id INTO wrong FROM added e JOIN accounts a ON a.id = e.account_id
    GROUP BY e.posting_id, a.currency HAVING sum(e.amount) <> 0 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the entries of posting % do not sum to zero', wrong;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER balanced AFTER INSERT ON entries REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION balanced();

-- Calls name the price they were charged by, so a price stays what it was.
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON prices FOR EACH ROW EXECUTE FUNCTION immutable();
CREATE TRIGGER immutable_all BEFORE TRUNCATE ON prices FOR EACH STATEMENT EXECUTE FUNCTION immutable();

INSERT INTO plans VALUES ('free', 'Free', 0);

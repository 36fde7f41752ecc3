-- The same checks in one pass over a statement's entries, looking up each posting once instead of once for each of its
-- entries.
CREATE OR REPLACE FUNCTION balanced() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    wrong record;
BEGIN
    SELECT s.posting_id, s.total, s.strange OR p.id IS NULL AS strange INTO wrong FROM (
        SELECT e.posting_id, sum(e.amount) AS total, bool_or(a.id IS NULL) AS strange
        FROM added e LEFT JOIN accounts a ON a.id = e.account_id GROUP BY e.posting_id, a.currency
    ) s LEFT JOIN postings p ON p.id = s.posting_id
    WHERE s.total <> 0 OR s.strange OR p.id IS NULL LIMIT 1;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF wrong.strange THEN
        RAISE foreign_key_violation
            USING MESSAGE = format('an entry of %s names no account or no posting', wrong.posting_id);
    END IF;
    RAISE EXCEPTION 'the entries of posting % do not sum to zero', wrong.posting_id;
END $$;

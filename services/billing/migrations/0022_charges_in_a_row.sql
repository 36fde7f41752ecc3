-- What a call does to its accounts stands in its posting's own row, a column for each account that a call can touch: that
-- is half of what a row for each entry cost, in time and on the disk. Other postings' entries are rows as before, as are
-- those of calls posted until now; the view has all of them.
ALTER TABLE entries RENAME TO entry_rows;
ALTER TABLE postings
    ADD COLUMN wallet_id text, ADD COLUMN wallet_amount bigint, -- nanos, signed as an entry is
    ADD COLUMN credit_id text, ADD COLUMN credit_amount bigint,
    ADD COLUMN payable_id text, ADD COLUMN payable_amount bigint,
    ADD COLUMN fee_id text, ADD COLUMN fee_amount bigint;
CREATE INDEX postings_wallet ON postings (wallet_id, id DESC) WHERE wallet_amount <> 0;
CREATE INDEX postings_credit ON postings (credit_id, id DESC) WHERE credit_amount <> 0;
CREATE INDEX postings_payable ON postings (payable_id, id DESC) WHERE payable_amount <> 0;

CREATE VIEW entries AS
SELECT posting_id, account_id, amount FROM entry_rows
UNION ALL SELECT id, wallet_id, wallet_amount FROM postings WHERE wallet_amount <> 0
UNION ALL SELECT id, credit_id, credit_amount FROM postings WHERE credit_amount <> 0
UNION ALL SELECT id, payable_id, payable_amount FROM postings WHERE payable_amount <> 0
UNION ALL SELECT id, fee_id, fee_amount FROM postings WHERE fee_amount <> 0;

-- As `balanced` checks entries that are rows.
CREATE FUNCTION balanced_in_a_row() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    wrong text;
BEGIN
    SELECT p.id INTO wrong FROM added p WHERE coalesce(p.wallet_amount, 0) + coalesce(p.credit_amount, 0)
        + coalesce(p.payable_amount, 0) + coalesce(p.fee_amount, 0) <> 0 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the entries of posting % do not sum to zero', wrong;
    END IF;
    SELECT x.id INTO wrong FROM (
        SELECT wallet_id AS id FROM added WHERE wallet_amount IS NOT NULL
        UNION SELECT credit_id FROM added WHERE credit_amount IS NOT NULL
        UNION SELECT payable_id FROM added WHERE payable_amount IS NOT NULL
        UNION SELECT fee_id FROM added WHERE fee_amount IS NOT NULL
    ) x LEFT JOIN accounts a ON a.id = x.id WHERE a.id IS NULL OR a.currency <> 'USD' LIMIT 1;
    IF FOUND THEN
        RAISE foreign_key_violation USING MESSAGE = format('a posting names no account, or one of another currency: %s', wrong);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER balanced AFTER INSERT ON postings REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION balanced_in_a_row();

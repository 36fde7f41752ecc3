-- What a call does to its accounts stands in its posting's own row, a column for each account that a call can touch: that
-- is half of what a row for each entry cost, in time and on the disk. Other postings' entries are rows as before, as are
-- those of calls posted until now; the view has all of them.
ALTER TABLE entries RENAME TO entry_rows;
ALTER TABLE postings
    ADD COLUMN wallet_id text, ADD COLUMN wallet_amount bigint, -- nanos, signed as an entry is
    ADD COLUMN credit_id text, ADD COLUMN credit_amount bigint,
    ADD COLUMN payable_id text, ADD COLUMN payable_amount bigint,
    ADD COLUMN fee_id text, ADD COLUMN fee_amount bigint;
CREATE INDEX postings_wallet ON postings (wallet_id, id DESC) WHERE wallet_id IS NOT NULL;
CREATE INDEX postings_credit ON postings (credit_id, id DESC) WHERE credit_id IS NOT NULL;
CREATE INDEX postings_payable ON postings (payable_id, id DESC) WHERE payable_id IS NOT NULL;

-- Entries of organisations' accounts, by account. The parts have no conditions of their own, so that each is read by its
-- index in the order that a query asks for; a query that asks for some in order also says of which kind the account is, and
-- reads no part that such an account is not in. The platform's account of fees is not among them, which is in every call.
CREATE VIEW org_entries AS SELECT posting_id, account_id, amount, kind FROM (
    SELECT posting_id, account_id, amount, NULL AS kind FROM entry_rows
    UNION ALL SELECT id, wallet_id, wallet_amount, 'customer_wallet' FROM postings
    UNION ALL SELECT id, credit_id, credit_amount, 'promotional_credit' FROM postings
    UNION ALL SELECT id, payable_id, payable_amount, 'publisher_payable' FROM postings
) e WHERE account_id IS NOT NULL;

-- All entries, by posting.
CREATE VIEW entries AS SELECT posting_id, account_id, amount FROM org_entries
UNION ALL SELECT id, fee_id, fee_amount FROM postings WHERE fee_id IS NOT NULL;

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
    SELECT p.id INTO wrong FROM added p WHERE (p.wallet_id IS NULL) <> (p.wallet_amount IS NULL)
        OR (p.credit_id IS NULL) <> (p.credit_amount IS NULL) OR (p.payable_id IS NULL) <> (p.payable_amount IS NULL)
        OR (p.fee_id IS NULL) <> (p.fee_amount IS NULL) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'an entry of posting % has no account or no amount', wrong;
    END IF;
    SELECT x.id INTO wrong FROM (
        SELECT wallet_id AS id FROM added UNION SELECT credit_id FROM added
        UNION SELECT payable_id FROM added UNION SELECT fee_id FROM added
    ) x LEFT JOIN accounts a ON a.id = x.id WHERE x.id IS NOT NULL AND (a.id IS NULL OR a.currency <> 'USD') LIMIT 1;
    IF FOUND THEN
        RAISE foreign_key_violation USING MESSAGE = format('a posting names no account, or one of another currency: %s', wrong);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER balanced AFTER INSERT ON postings REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION balanced_in_a_row();

-- Corrections on invoices, credit notes, credit that goes back to its grants, and what is owed when a period ends.

-- `day`, `key_id` and `model_id`: what budgets count it into. A null day: from before budgets and invoices knew corrections.
ALTER TABLE corrections
    ADD COLUMN credit_back bigint NOT NULL DEFAULT 0 CHECK (credit_back >= 0), -- nanos of it that are credit again
    ADD COLUMN key_id text NOT NULL DEFAULT '',
    ADD COLUMN model_id text NOT NULL DEFAULT '',
    ADD COLUMN day date;
DROP INDEX corrections_org;
CREATE INDEX corrections_org ON corrections (org_id, created_at);
CREATE INDEX corrections_publisher ON corrections (publisher_org_id, created_at);
CREATE INDEX corrections_day ON corrections (day);

-- The same of refunds, and since when budgets know them.
ALTER TABLE call_refunds
    ADD COLUMN key_id text NOT NULL DEFAULT '', ADD COLUMN model_id text NOT NULL DEFAULT '', ADD COLUMN day date;
CREATE INDEX call_refunds_day ON call_refunds (day);

-- What calls had spent of grants and is back in them.
CREATE TABLE credit_returns (
    grant_id text NOT NULL,
    cause text COLLATE "C" NOT NULL,      -- rfd_… or cor_…
    request_id text COLLATE "C" NOT NULL, -- of the call
    amount bigint NOT NULL CHECK (amount > 0),
    PRIMARY KEY (grant_id, cause)
);
CREATE INDEX credit_returns_call ON credit_returns (request_id);
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON credit_returns FOR EACH ROW EXECUTE FUNCTION immutable();
CREATE TRIGGER immutable_all BEFORE TRUNCATE ON credit_returns FOR EACH STATEMENT EXECUTE FUNCTION immutable();

-- How often something was left of a grant after its end: again, when a call gives back later what it had spent.
ALTER TABLE credit_grants ADD COLUMN lapses integer NOT NULL DEFAULT 0;
UPDATE credit_grants SET lapses = 1 WHERE lapsed > 0;

-- A credit note is of one correction or refund, and says which invoice it corrects.
ALTER TABLE invoices
    ADD COLUMN cause text UNIQUE COLLATE "C",              -- cor_… or rfd_…
    ADD COLUMN corrects text REFERENCES invoices (id),
    ADD COLUMN owed bigint NOT NULL DEFAULT 0 CHECK (owed >= 0), -- nanos of `due` by which the wallet was below zero
    ADD CHECK ((kind = 'credit_note') = (cause IS NOT NULL)),
    ADD CHECK ((kind = 'credit_note') = (corrects IS NOT NULL));

CREATE OR REPLACE FUNCTION finalised() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND OLD.number IS NOT NULL OR TG_OP = 'UPDATE' AND OLD.number IS NOT NULL AND (
        NEW.number, NEW.id, NEW.org_id, NEW.kind, NEW.prepaid, NEW.due, NEW.owed, NEW.cause, NEW.corrects, NEW.finalized_at
    ) IS DISTINCT FROM (
        OLD.number, OLD.id, OLD.org_id, OLD.kind, OLD.prepaid, OLD.due, OLD.owed, OLD.cause, OLD.corrects, OLD.finalized_at
    ) THEN
        RAISE EXCEPTION 'invoice % is final: correct it by another', OLD.number;
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;

-- What a model's subscribers pay less for calls to it: by the offer, and from then on by the subscription.
ALTER TABLE model_offers
    ADD COLUMN discount_ppm integer NOT NULL DEFAULT 0 CHECK (discount_ppm BETWEEN 0 AND 1000000); -- millionths
ALTER TABLE subscriptions
    ADD COLUMN discount_ppm integer NOT NULL DEFAULT 0 CHECK (discount_ppm BETWEEN 0 AND 1000000);
CREATE INDEX subscriptions_model ON subscriptions (model_id) WHERE model_id <> '' AND status <> 'canceled';

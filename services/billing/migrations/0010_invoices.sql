-- Invoices: drafted when a period ends or a plan changes, numbered when they are finalised, and then unchanged but for
-- how they are paid.
CREATE TABLE invoices (
    id text PRIMARY KEY,
    org_id text NOT NULL,
    user_id text NOT NULL,
    kind text NOT NULL,         -- invoice, self_billing
    status text NOT NULL,       -- draft, open, paid, void, uncollectible
    number text UNIQUE,
    currency text NOT NULL,
    period_start timestamptz,   -- whose calls are on it; null: no calls
    period_end timestamptz,
    prepaid bigint NOT NULL DEFAULT 0, -- nanos, of calls, paid from the wallet as they were made
    due bigint NOT NULL DEFAULT 0,     -- nanos, to be collected, or (less than 0) credited
    attempts integer NOT NULL DEFAULT 0,
    failure_code text NOT NULL DEFAULT '',
    first_failed_at timestamptz,
    next_attempt_at timestamptz, -- null: none is due; one may be under way
    created_at timestamptz NOT NULL,
    finalized_at timestamptz,
    paid_at timestamptz,
    CHECK ((status = 'draft') = (number IS NULL)),
    CHECK ((status = 'draft') = (finalized_at IS NULL)),
    CHECK ((status = 'paid') = (paid_at IS NOT NULL)),
    UNIQUE (org_id, kind, period_start) -- no period is invoiced twice
);
CREATE INDEX invoices_org ON invoices (org_id, id DESC);
CREATE INDEX invoices_drafts ON invoices (id) WHERE status = 'draft';
CREATE INDEX invoices_due ON invoices (next_attempt_at) WHERE next_attempt_at IS NOT NULL;

CREATE TABLE invoice_lines (
    id text PRIMARY KEY,
    invoice_id text NOT NULL REFERENCES invoices (id),
    position integer NOT NULL,
    kind text NOT NULL,         -- subscription, proration, usage, earnings, platform_fee
    description text NOT NULL,
    subscription_id text NOT NULL DEFAULT '',
    model_id text NOT NULL DEFAULT '',
    model text NOT NULL DEFAULT '',
    publisher_org_id text NOT NULL DEFAULT '', -- who has the amount, but for `fee_ppm` of it; empty: the platform
    fee_ppm integer NOT NULL DEFAULT 0,
    meter text NOT NULL DEFAULT '',
    price_id text NOT NULL DEFAULT '',
    quantity bigint NOT NULL DEFAULT 0,
    calls bigint NOT NULL DEFAULT 0,
    amount bigint NOT NULL,     -- nanos
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,
    UNIQUE (invoice_id, position)
);
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON invoice_lines FOR EACH ROW EXECUTE FUNCTION immutable();
CREATE TRIGGER immutable_all BEFORE TRUNCATE ON invoice_lines FOR EACH STATEMENT EXECUTE FUNCTION immutable();

CREATE FUNCTION finalised() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND OLD.number IS NOT NULL OR TG_OP = 'UPDATE' AND OLD.number IS NOT NULL AND (
        NEW.number, NEW.id, NEW.org_id, NEW.kind, NEW.prepaid, NEW.due, NEW.finalized_at
    ) IS DISTINCT FROM (OLD.number, OLD.id, OLD.org_id, OLD.kind, OLD.prepaid, OLD.due, OLD.finalized_at) THEN
        RAISE EXCEPTION 'invoice % is final: correct it by another', OLD.number;
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;
CREATE TRIGGER finalised BEFORE UPDATE OR DELETE ON invoices FOR EACH ROW EXECUTE FUNCTION finalised();

-- The last number of each issuer's year. Taken in the transaction that finalises, so that none is left out.
CREATE TABLE invoice_numbers (
    issuer text NOT NULL,
    year integer NOT NULL,
    last integer NOT NULL,
    PRIMARY KEY (issuer, year)
);

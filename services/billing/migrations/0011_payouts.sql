-- What publishers earned, paid to them. A payout is a saga, as payments are: its row says how far it got.
CREATE TABLE payout_accounts (
    org_id text PRIMARY KEY,
    user_id text NOT NULL,
    provider text NOT NULL,
    ref text NOT NULL, -- the provider's name for it
    ready boolean NOT NULL,
    schedule text NOT NULL, -- weekly, monthly
    anchor timestamptz NOT NULL, -- weeks and months are counted from here
    next_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    UNIQUE (provider, ref)
);
CREATE INDEX payout_accounts_due ON payout_accounts (next_at);

CREATE TABLE payouts (
    id text PRIMARY KEY,
    org_id text NOT NULL,
    user_id text NOT NULL,
    amount bigint NOT NULL CHECK (amount > 0 AND amount % 10000000 = 0), -- nanos, whole cents
    currency text NOT NULL,
    status text NOT NULL, -- pending, paid, failed
    provider text NOT NULL,
    account_ref text NOT NULL,
    provider_ref text,
    failure_code text NOT NULL DEFAULT '',
    earned_from timestamptz,          -- what was earned within this time is in it; null: since the beginning
    earned_until timestamptz NOT NULL,
    carried_in bigint NOT NULL,       -- nanos, of the payout before
    carried_out bigint NOT NULL,      -- and to the next one: parts of a cent
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,      -- null: it has ended
    created_at timestamptz NOT NULL,
    settled_at timestamptz
);
CREATE INDEX payouts_org ON payouts (org_id, id DESC);
CREATE INDEX payouts_due ON payouts (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
CREATE UNIQUE INDEX payouts_one ON payouts (org_id) WHERE next_attempt_at IS NOT NULL; -- one at a time

-- What was taken back of earnings, and which payout is smaller by it.
CREATE TABLE payout_adjustments (
    posting_id text PRIMARY KEY,
    payout_id text NOT NULL REFERENCES payouts (id)
);
CREATE INDEX payout_adjustments_payout ON payout_adjustments (payout_id);

CREATE TABLE call_refunds (
    id text PRIMARY KEY,              -- the cause of its posting
    request_id text NOT NULL UNIQUE,  -- a call is refunded once
    org_id text NOT NULL,
    publisher_org_id text NOT NULL,
    amount bigint NOT NULL CHECK (amount > 0), -- nanos
    reason text NOT NULL,
    created_at timestamptz NOT NULL
);

-- What a payout consists of; written once, when its calls have been read.
CREATE TABLE payout_lines (
    payout_id text NOT NULL REFERENCES payouts (id),
    position integer NOT NULL,
    kind text NOT NULL, -- calls, subscriptions, refunds, carried
    model text NOT NULL,
    count bigint NOT NULL,
    amount bigint NOT NULL, -- nanos
    PRIMARY KEY (payout_id, position)
);
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON payout_lines FOR EACH ROW EXECUTE FUNCTION immutable();

-- The books: accounts, postings of entries that sum to zero, and balances derived from them.
CREATE TABLE accounts (
    id text PRIMARY KEY,
    org_id text NOT NULL, -- empty: the platform's own
    kind text NOT NULL,   -- customer_wallet, publisher_payable, platform_fee, sandbox_clearing
    currency text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (org_id, kind, currency)
);

CREATE TABLE postings (
    id text PRIMARY KEY,
    cause text NOT NULL UNIQUE, -- req_… of a call, txn_… of a transaction: nothing is posted twice
    kind text NOT NULL,
    digest bytea NOT NULL,      -- of cause, kind and entries: an edited row shows
    created_at timestamptz NOT NULL
);

CREATE TABLE entries (
    posting_id text NOT NULL REFERENCES postings (id),
    account_id text NOT NULL REFERENCES accounts (id),
    amount bigint NOT NULL, -- nanos
    PRIMARY KEY (posting_id, account_id)
);
CREATE INDEX entries_account ON entries (account_id, posting_id DESC);

CREATE TABLE balances (
    account_id text PRIMARY KEY REFERENCES accounts (id),
    balance bigint NOT NULL DEFAULT 0
);

CREATE FUNCTION immutable() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the books are immutable: correct by a posting of its own';
END $$;
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON postings FOR EACH ROW EXECUTE FUNCTION immutable();
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON entries FOR EACH ROW EXECUTE FUNCTION immutable();
CREATE TRIGGER immutable_all BEFORE TRUNCATE ON postings FOR EACH STATEMENT EXECUTE FUNCTION immutable();
CREATE TRIGGER immutable_all BEFORE TRUNCATE ON entries FOR EACH STATEMENT EXECUTE FUNCTION immutable();

-- An organisation's spending money. `reserved` is the part of the balance that workers hold in leases.
CREATE TABLE wallets (
    org_id text PRIMARY KEY,
    account_id text NOT NULL REFERENCES accounts (id),
    reserved bigint NOT NULL DEFAULT 0
);

-- A slice of a wallet that one worker may spend. `posted` is what calls of it have cost in the ledger so far.
CREATE TABLE leases (
    id text PRIMARY KEY,
    org_id text NOT NULL REFERENCES wallets (org_id),
    worker_id text NOT NULL,
    granted bigint NOT NULL CHECK (granted > 0),
    posted bigint NOT NULL DEFAULT 0,
    reported bigint,        -- all that the worker says it spent; known once it closes the lease
    closed boolean NOT NULL DEFAULT false,
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX leases_open ON leases (expires_at) WHERE NOT closed;

CREATE TABLE prices (
    id text PRIMARY KEY,
    model_id text NOT NULL,
    model text NOT NULL,
    currency text NOT NULL,
    components jsonb NOT NULL, -- [[meter, nanos per million], …]
    effective_at timestamptz NOT NULL
);
CREATE INDEX prices_model ON prices (model_id, effective_at DESC, id DESC);

CREATE TABLE plans (
    id text PRIMARY KEY,
    name text NOT NULL,
    monthly_nanos bigint NOT NULL
);
INSERT INTO plans VALUES ('pay_as_you_go', 'Pay as you go', 0);

CREATE TABLE subscriptions (
    id text PRIMARY KEY,
    user_id text NOT NULL,
    org_id text NOT NULL UNIQUE,
    plan_id text NOT NULL REFERENCES plans (id),
    stripe_subscription_id text,
    status text NOT NULL,
    current_period_start timestamptz NOT NULL,
    current_period_end timestamptz,
    created_at timestamptz NOT NULL
);

CREATE TABLE transactions (
    id text PRIMARY KEY,
    user_id text NOT NULL,
    org_id text NOT NULL,
    amount bigint NOT NULL,
    currency text NOT NULL,
    type smallint NOT NULL,
    status text NOT NULL,
    stripe_payment_id text,
    cause text NOT NULL UNIQUE,
    metadata jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL
);
CREATE INDEX transactions_org ON transactions (org_id, id DESC);
CREATE INDEX postings_cause ON postings (cause COLLATE "C");

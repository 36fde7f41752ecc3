-- Credit that the platform gives: spent before the wallet, in an order, until it expires.
CREATE TABLE credit_grants (
    id text PRIMARY KEY,
    org_id text NOT NULL REFERENCES wallets (org_id),
    amount bigint NOT NULL CHECK (amount > 0),
    remaining bigint NOT NULL CHECK (remaining >= 0),
    lapsed bigint NOT NULL DEFAULT 0, -- what was left when it expired
    priority smallint NOT NULL,       -- the lowest is spent first
    expires_at timestamptz,           -- empty: never
    reason text NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX credit_grants_left ON credit_grants (org_id) WHERE remaining > 0;
CREATE INDEX credit_grants_org ON credit_grants (org_id, id DESC);

-- Which call spent how much of which grant.
CREATE TABLE credit_burns (
    grant_id text NOT NULL,
    cause text COLLATE "C" NOT NULL, -- req_… of the call
    amount bigint NOT NULL CHECK (amount > 0),
    PRIMARY KEY (grant_id, cause)
);
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON credit_burns FOR EACH ROW EXECUTE FUNCTION immutable();
CREATE TRIGGER immutable_all BEFORE TRUNCATE ON credit_burns FOR EACH STATEMENT EXECUTE FUNCTION immutable();

-- How far below zero the wallet may go.
ALTER TABLE wallets ADD COLUMN credit_limit bigint NOT NULL DEFAULT 0 CHECK (credit_limit >= 0);

-- No call begins to spend from a lease after `ends_at`; `expires_at` is renewed while those under way go on.
ALTER TABLE leases ADD COLUMN ends_at timestamptz;
UPDATE leases SET ends_at = created_at + interval '1 day';
ALTER TABLE leases ALTER COLUMN ends_at SET NOT NULL;
CREATE INDEX leases_of_org ON leases (org_id, created_at) WHERE NOT closed;

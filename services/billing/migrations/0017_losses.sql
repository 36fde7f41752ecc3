-- Money of disputes that the wallet did not hold any more: it paid calls, and their publishers bear what they earned of it.
CREATE TABLE losses (
    reversal_id text PRIMARY KEY REFERENCES reversals (id),
    org_id text NOT NULL,            -- who disputes
    amount bigint NOT NULL CHECK (amount > 0), -- nanos that the wallet was short of
    paid_since timestamptz NOT NULL, -- when the money came: calls posted from then on,
    paid_until timestamptz NOT NULL, -- until it was disputed
    status text NOT NULL,            -- open, held, charged, released
    first_posting text,              -- the calls lie between these
    last_posting text,
    created_at timestamptz NOT NULL,
    settled_at timestamptz
);
CREATE INDEX losses_org ON losses (org_id);
CREATE INDEX losses_due ON losses (reversal_id) WHERE status IN ('open', 'held');

CREATE TABLE loss_shares (
    reversal_id text NOT NULL REFERENCES losses (reversal_id),
    publisher_org_id text NOT NULL,
    calls bigint NOT NULL,
    amount bigint NOT NULL CHECK (amount > 0), -- nanos
    PRIMARY KEY (reversal_id, publisher_org_id)
);
CREATE INDEX loss_shares_publisher ON loss_shares (publisher_org_id);
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON loss_shares FOR EACH ROW EXECUTE FUNCTION immutable();
CREATE TRIGGER immutable_all BEFORE TRUNCATE ON loss_shares FOR EACH STATEMENT EXECUTE FUNCTION immutable();

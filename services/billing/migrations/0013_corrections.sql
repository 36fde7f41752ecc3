-- What a call counts and costs in truth from a correction on; the newest of a call is its state. `*_change`: to before.
CREATE TABLE corrections (
    id text PRIMARY KEY COLLATE "C",  -- cor_…, with the time of the call; the cause of its posting
    request_id text NOT NULL COLLATE "C",
    number integer NOT NULL CHECK (number > 0),
    org_id text NOT NULL,
    publisher_org_id text NOT NULL,
    units jsonb NOT NULL,
    cost bigint NOT NULL CHECK (cost >= 0), -- nanos
    cost_change bigint NOT NULL,
    fee_change bigint NOT NULL,             -- the platform's part of cost_change
    reason text NOT NULL,
    user_id text NOT NULL,                  -- who corrected
    created_at timestamptz NOT NULL,
    UNIQUE (request_id, number)
);
CREATE INDEX corrections_org ON corrections (org_id);
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON corrections FOR EACH ROW EXECUTE FUNCTION immutable();
CREATE TRIGGER immutable_all BEFORE TRUNCATE ON corrections FOR EACH STATEMENT EXECUTE FUNCTION immutable();

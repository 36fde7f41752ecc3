-- Each organisation's entries are a chain. What is personal (address, user agent, metadata) may be erased: the chain
-- covers a salted hash of it.
ALTER TABLE audit_logs
    ADD COLUMN key_id text NOT NULL DEFAULT '',
    ADD COLUMN request_id text NOT NULL DEFAULT '',
    ADD COLUMN chain text,       -- null, as what follows: not in its chain yet
    ADD COLUMN sequence bigint,
    ADD COLUMN salt bytea,       -- null: erased
    ADD COLUMN details_hash bytea,
    ADD COLUMN previous_hash bytea,
    ADD COLUMN hash bytea;
CREATE UNIQUE INDEX audit_logs_chain ON audit_logs (chain, sequence);
CREATE INDEX audit_logs_loose ON audit_logs (created_at) WHERE chain IS NULL;
CREATE INDEX audit_logs_details ON audit_logs (created_at) WHERE salt IS NOT NULL;

-- Where each chain ends, whose row its writers lock, and up to where it was signed when that was last looked at; what was
-- signed is in the object store alone.
CREATE TABLE audit_chains (
    chain text PRIMARY KEY,
    sequence bigint NOT NULL DEFAULT 0,
    hash bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex'),
    signed bigint NOT NULL DEFAULT 0
);

-- Programs that get tokens (RFC 6749). Those of a service account act as it and have a secret; those without one are
-- tools that people let act for them (RFC 8628).
CREATE TABLE oauth_clients (
    id text PRIMARY KEY,
    org_id text NOT NULL REFERENCES organisations (id),
    service_account_id text REFERENCES service_accounts (id),
    name text NOT NULL,
    secret_hash bytea,
    scopes jsonb NOT NULL,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL,
    revoked_at timestamptz,
    CHECK ((service_account_id IS NULL) = (secret_hash IS NULL))
);
CREATE INDEX oauth_clients_org ON oauth_clients (org_id, id DESC);

-- Access tokens of service accounts that were revoked before their end.
CREATE TABLE revoked_tokens (
    token_id text PRIMARY KEY,
    expires_at timestamptz NOT NULL
);

-- Devices that wait for somebody to let them in. `scopes`: null is all; `approved`: null is undecided. Who decided, and
-- how they had proved who they are, is what the device's session begins with; then the row goes.
CREATE TABLE device_codes (
    device_hash bytea PRIMARY KEY,
    user_hash bytea NOT NULL UNIQUE,
    client_id text NOT NULL,
    scopes jsonb,
    ip_address text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    interval_seconds integer NOT NULL,
    polled_at timestamptz,
    user_id text REFERENCES users (id),
    approved boolean,
    authenticated_at timestamptz,
    second_factor boolean
);
CREATE INDEX device_codes_user ON device_codes (user_id);
CREATE INDEX device_codes_expires ON device_codes (expires_at);

-- The client that a session was opened for, and the scopes it is held to; null: none, all.
ALTER TABLE sessions ADD COLUMN client_id text, ADD COLUMN scopes jsonb;

-- Whom each client is of. Those of who is gone are not among them.
CREATE VIEW client_principals AS
SELECT c.id AS client_id, c.name, c.secret_hash, c.scopes, c.org_id, c.service_account_id AS principal_id, o.handle, o.tier,
    o.call_limit, o.personal_of, owner.role AS owner_role, s.role AS member_role, r.scopes AS role_scopes
FROM oauth_clients c
JOIN organisations o ON o.id = c.org_id
LEFT JOIN users owner ON owner.id = o.personal_of
LEFT JOIN service_accounts s ON s.id = c.service_account_id AND s.deleted_at IS NULL
LEFT JOIN roles r ON r.org_id = c.org_id AND r.name = s.role
WHERE c.revoked_at IS NULL AND (c.service_account_id IS NULL OR s.id IS NOT NULL) AND owner.deleted_at IS NULL;

ALTER TABLE organisations
    ADD COLUMN display_name text NOT NULL DEFAULT '',
    ADD COLUMN revision bigint NOT NULL DEFAULT 1;
ALTER TABLE members ADD COLUMN created_at timestamptz NOT NULL DEFAULT now();
CREATE INDEX members_user ON members (user_id);

-- Roles that an organisation made for itself; those that every one has are in roles.py.
CREATE TABLE roles (
    org_id text NOT NULL REFERENCES organisations (id),
    name text NOT NULL,
    scopes jsonb NOT NULL,
    PRIMARY KEY (org_id, name)
);

CREATE TABLE invitations (
    id text PRIMARY KEY,
    org_id text NOT NULL REFERENCES organisations (id),
    email text NOT NULL,
    role text NOT NULL,
    code_hash bytea NOT NULL UNIQUE,
    invited_by text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    accepted_at timestamptz,
    accepted_by text REFERENCES users (id),
    revoked_at timestamptz
);
-- Of an address one is open.
CREATE UNIQUE INDEX invitations_open ON invitations (org_id, lower(email))
    WHERE accepted_at IS NULL AND revoked_at IS NULL;

CREATE TABLE service_accounts (
    id text PRIMARY KEY,
    org_id text NOT NULL REFERENCES organisations (id),
    name text NOT NULL,
    role text NOT NULL,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL,
    deleted_at timestamptz
);
CREATE UNIQUE INDEX service_accounts_name ON service_accounts (org_id, name) WHERE deleted_at IS NULL;

-- A key is a user's, a service account's, or nobody's: then the organisation's members share it.
ALTER TABLE api_keys
    ALTER COLUMN user_id DROP NOT NULL,
    ADD COLUMN service_account_id text REFERENCES service_accounts (id),
    ADD COLUMN created_by text,  -- null: the user themself
    ADD CHECK (num_nonnulls(user_id, service_account_id) < 2);
CREATE INDEX api_keys_org ON api_keys (org_id, id DESC);

-- The organisation that a session is for; null: the personal one.
ALTER TABLE refresh_tokens ADD COLUMN org_id text REFERENCES organisations (id);

-- Whom each key calls as, and what gives them their scopes. Keys of who is out, or gone, are not among them.
CREATE VIEW key_principals AS
SELECT k.key_hash, k.id AS key_id, coalesce(k.user_id, k.service_account_id, k.org_id) AS principal_id, k.org_id, k.scopes,
    k.test, k.expires_at, k.is_active, k.call_limit AS key_call_limit, o.handle, o.tier, o.call_limit, o.personal_of,
    owner.role AS owner_role, r.scopes AS role_scopes, coalesce(u.is_verified, true) AS is_verified,
    CASE WHEN k.user_id IS NOT NULL THEN m.role WHEN k.service_account_id IS NOT NULL THEN s.role ELSE 'admin' END
        AS member_role
FROM api_keys k
JOIN organisations o ON o.id = k.org_id
LEFT JOIN users owner ON owner.id = o.personal_of
LEFT JOIN users u ON u.id = k.user_id
LEFT JOIN members m ON m.org_id = k.org_id AND m.user_id = k.user_id
LEFT JOIN service_accounts s ON s.id = k.service_account_id AND s.deleted_at IS NULL
LEFT JOIN roles r ON r.org_id = k.org_id AND r.name = coalesce(m.role, s.role)
WHERE (k.user_id IS NULL OR (m.user_id IS NOT NULL AND u.deleted_at IS NULL))
    AND (k.service_account_id IS NULL OR s.id IS NOT NULL)
    AND owner.deleted_at IS NULL;

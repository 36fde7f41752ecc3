-- From where a key may be used and for which models (mercat.auth.v1.KeyRules), and the secret before a rotation, which
-- is good until its end. `key_hash` is the newest secret's.
ALTER TABLE api_keys
    ADD COLUMN rules jsonb,
    ADD COLUMN revision bigint NOT NULL DEFAULT 1,
    ADD COLUMN previous_hash bytea UNIQUE,
    ADD COLUMN previous_expires_at timestamptz,
    ADD COLUMN previous_last_used_at timestamptz;

CREATE OR REPLACE VIEW key_principals AS
SELECT k.key_hash, k.id AS key_id, coalesce(k.user_id, k.service_account_id, k.org_id) AS principal_id, k.org_id, k.scopes,
    k.test, k.expires_at, k.is_active, k.call_limit AS key_call_limit, o.handle, o.tier, o.call_limit, o.personal_of,
    owner.role AS owner_role, r.scopes AS role_scopes, coalesce(u.is_verified, true) AS is_verified,
    CASE WHEN k.user_id IS NOT NULL THEN m.role WHEN k.service_account_id IS NOT NULL THEN s.role ELSE 'admin' END
        AS member_role, k.rules
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

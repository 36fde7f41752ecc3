-- name: add_user(id, email, username, password_hash, role, display_name, is_verified, now)!
INSERT INTO users (id, email, username, password_hash, role, display_name, is_verified, created_at, updated_at)
VALUES (:id, :email, :username, :password_hash, :role, :display_name, :is_verified, :now, :now);

-- name: add_organisation(id, handle, personal_of, now)!
INSERT INTO organisations (id, handle, personal_of, created_at) VALUES (:id, :handle, :personal_of, :now);

-- name: add_member(org_id, user_id, role, now)!
INSERT INTO members (org_id, user_id, role, created_at) VALUES (:org_id, :user_id, :role, :now);

-- name: find_user(email)^
SELECT u.*, o.id AS org_id, f.confirmed_at IS NOT NULL AS second_factor
FROM users u JOIN organisations o ON o.personal_of = u.id LEFT JOIN totp_factors f ON f.user_id = u.id
WHERE lower(u.email) = lower(:email) AND u.deleted_at IS NULL;

-- name: get_user(user_id)^
SELECT u.*, o.id AS org_id, o.tier, o.call_limit, f.confirmed_at IS NOT NULL AS second_factor
FROM users u JOIN organisations o ON o.personal_of = u.id LEFT JOIN totp_factors f ON f.user_id = u.id
WHERE u.id = :user_id AND u.deleted_at IS NULL;

-- name: update_profile(user_id, display_name, revision, now)^
-- No row: the revision is no longer the current one. A revision of 0 is any.
UPDATE users SET display_name = :display_name, revision = revision + 1, updated_at = :now
WHERE id = :user_id AND deleted_at IS NULL AND (:revision::bigint = 0 OR revision = :revision) RETURNING id;

-- name: find_membership(user_id, handle)$
SELECT CASE WHEN o.personal_of = m.user_id THEN '' ELSE o.id END
FROM organisations o JOIN members m ON m.org_id = o.id WHERE o.handle = :handle AND m.user_id = :user_id;

-- name: add_api_key(id, user_id, service_account_id, org_id, created_by, key_hash, prefix, name, scopes, test, expires_at, now)^
INSERT INTO api_keys (id, user_id, service_account_id, org_id, created_by, key_hash, prefix, name, scopes, test, expires_at,
    created_at)
VALUES (:id, :user_id, :service_account_id, :org_id, :created_by, :key_hash, :prefix, :name, :scopes::text::jsonb, :test,
    :expires_at, :now)
RETURNING *;

-- name: list_api_keys(owner_id, org_id, before, most)
SELECT * FROM api_keys
WHERE org_id = :org_id AND coalesce(user_id, service_account_id, org_id) = :owner_id
    AND (:before::text IS NULL OR id < :before)
ORDER BY id DESC LIMIT :most;

-- name: revoke_api_key(key_id, owner_id, org_id)^
UPDATE api_keys SET is_active = false
WHERE id = :key_id AND org_id = :org_id AND coalesce(user_id, service_account_id, org_id) = :owner_id RETURNING *;

-- name: resolve_api_keys(key_hashes)
SELECT * FROM key_principals WHERE key_hash = ANY(:key_hashes::bytea[]);

-- name: get_key_principal(key_id, owner_id, org_id)^
SELECT * FROM key_principals
WHERE key_id = :key_id AND (:owner_id::text = '' OR principal_id = :owner_id) AND (:org_id::text = '' OR org_id = :org_id);

-- name: get_member_principal(user_id, org_id)^
SELECT u.id AS principal_id, u.role AS owner_role, o.id AS org_id, o.handle, o.personal_of, o.tier, o.call_limit,
    m.role AS member_role, r.scopes AS role_scopes, u.is_verified, f.confirmed_at IS NOT NULL AS second_factor
FROM users u JOIN members m ON m.user_id = u.id JOIN organisations o ON o.id = m.org_id
LEFT JOIN roles r ON r.org_id = o.id AND r.name = m.role LEFT JOIN totp_factors f ON f.user_id = u.id
WHERE u.id = :user_id AND u.deleted_at IS NULL AND (o.id = :org_id OR (:org_id = '' AND o.personal_of = u.id));

-- name: touch_api_keys(key_ids, used)!
UPDATE api_keys k SET last_used_at = greatest(k.last_used_at, t.used)
FROM unnest(:key_ids::text[], :used::timestamptz[]) AS t (id, used) WHERE k.id = t.id;

-- name: set_key_limit(key_id, owner_id, org_id, call_limit)^
UPDATE api_keys SET call_limit = :call_limit::text::jsonb
WHERE id = :key_id AND org_id = :org_id AND coalesce(user_id, service_account_id, org_id) = :owner_id RETURNING *;

-- name: list_limited_keys(owner_id, org_id)
SELECT * FROM api_keys
WHERE org_id = :org_id AND coalesce(user_id, service_account_id, org_id) = :owner_id AND is_active
    AND call_limit IS NOT NULL
ORDER BY id DESC LIMIT 1000;

-- name: get_account(org_id)^
SELECT id, handle, tier, call_limit FROM organisations WHERE id = :org_id;

-- name: set_account_limit(handle, tier, call_limit)^
-- A tier of 0 stays what it was.
UPDATE organisations SET tier = coalesce(nullif(:tier::smallint, 0), tier),
    call_limit = :call_limit::text::jsonb
WHERE handle = :handle RETURNING *;

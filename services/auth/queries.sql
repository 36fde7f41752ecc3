-- name: add_user(id, email, username, password_hash, role, display_name, is_verified, now)!
INSERT INTO users (id, email, username, password_hash, role, display_name, is_verified, created_at, updated_at)
VALUES (:id, :email, :username, :password_hash, :role, :display_name, :is_verified, :now, :now);

-- name: add_organisation(id, handle, personal_of, now)!
INSERT INTO organisations (id, handle, personal_of, created_at) VALUES (:id, :handle, :personal_of, :now);

-- name: add_member(org_id, user_id, role)!
INSERT INTO members (org_id, user_id, role) VALUES (:org_id, :user_id, :role);

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

-- name: add_api_key(id, user_id, org_id, key_hash, prefix, name, scopes, test, expires_at, now)^
INSERT INTO api_keys (id, user_id, org_id, key_hash, prefix, name, scopes, test, expires_at, created_at)
VALUES (:id, :user_id, :org_id, :key_hash, :prefix, :name, :scopes::text::jsonb, :test, :expires_at, :now)
RETURNING *;

-- name: list_api_keys(user_id, before, most)
SELECT * FROM api_keys WHERE user_id = :user_id AND (:before::text IS NULL OR id < :before)
ORDER BY id DESC LIMIT :most;

-- name: revoke_api_key(key_id, user_id)^
UPDATE api_keys SET is_active = false WHERE id = :key_id AND user_id = :user_id RETURNING *;

-- name: resolve_api_keys(key_hashes)
SELECT k.key_hash, k.id AS key_id, k.user_id, k.org_id, k.scopes, k.test, k.expires_at, k.is_active, u.role, u.is_verified, o.handle,
    o.tier, o.call_limit, k.call_limit AS key_call_limit
FROM api_keys k JOIN users u ON u.id = k.user_id JOIN organisations o ON o.id = k.org_id
WHERE k.key_hash = ANY(:key_hashes::bytea[]) AND u.deleted_at IS NULL;

-- name: get_key_principal(key_id, user_id)^
SELECT k.id AS key_id, k.user_id, k.org_id, k.scopes, k.test, k.expires_at, k.is_active, u.role, u.is_verified, o.handle, o.tier,
    o.call_limit, k.call_limit AS key_call_limit
FROM api_keys k JOIN users u ON u.id = k.user_id JOIN organisations o ON o.id = k.org_id
WHERE k.id = :key_id AND k.user_id = :user_id AND u.deleted_at IS NULL;

-- name: touch_api_keys(key_ids, used)!
UPDATE api_keys k SET last_used_at = greatest(k.last_used_at, t.used)
FROM unnest(:key_ids::text[], :used::timestamptz[]) AS t (id, used) WHERE k.id = t.id;

-- name: set_key_limit(key_id, user_id, call_limit)^
UPDATE api_keys SET call_limit = :call_limit::text::jsonb WHERE id = :key_id AND user_id = :user_id RETURNING *;

-- name: list_limited_keys(user_id)
SELECT * FROM api_keys WHERE user_id = :user_id AND is_active AND call_limit IS NOT NULL ORDER BY id DESC LIMIT 1000;

-- name: set_account_limit(handle, tier, call_limit)^
-- A tier of 0 stays what it was.
UPDATE organisations SET tier = coalesce(nullif(:tier::smallint, 0), tier),
    call_limit = :call_limit::text::jsonb
WHERE handle = :handle RETURNING *;

-- name: add_audit_log(id, user_id, org_id, action, resource_type, resource_id, metadata, ip_address, user_agent, created_at)!
INSERT INTO audit_logs (id, user_id, org_id, action, resource_type, resource_id, metadata, ip_address, user_agent, created_at)
VALUES (:id, :user_id, :org_id, :action, :resource_type, :resource_id, :metadata::text::jsonb,
    :ip_address::text::inet, :user_agent, :created_at)
ON CONFLICT DO NOTHING;

-- name: add_user(id, email, username, password_hash, role, display_name, is_verified, now)!
INSERT INTO users (id, email, username, password_hash, role, display_name, is_verified, created_at, updated_at)
VALUES (:id, :email, :username, :password_hash, :role, :display_name, :is_verified, :now, :now);

-- name: add_organisation(id, handle, skeleton, personal_of, now)!
INSERT INTO organisations (id, handle, skeleton, personal_of, created_at)
VALUES (:id, :handle, :skeleton, :personal_of, :now);

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

-- name: add_api_key(id, user_id, service_account_id, org_id, created_by, key_hash, prefix, name, scopes, test, expires_at, call_limit, rules, now)^
INSERT INTO api_keys (id, user_id, service_account_id, org_id, created_by, key_hash, prefix, name, scopes, test, expires_at,
    call_limit, rules, created_at)
VALUES (:id, :user_id, :service_account_id, :org_id, :created_by, :key_hash, :prefix, :name, :scopes::text::jsonb, :test,
    :expires_at, :call_limit::text::jsonb, :rules::text::jsonb, :now)
RETURNING *;

-- name: get_api_key(key_id, org_id, owner_id, shared)^
SELECT * FROM api_keys
WHERE id = :key_id AND org_id = :org_id
    AND (coalesce(user_id, service_account_id, org_id) = :owner_id OR (:shared AND user_id IS NULL));

-- name: lock_api_key(key_id, org_id, owner_id, shared)^
SELECT * FROM api_keys
WHERE id = :key_id AND org_id = :org_id
    AND (coalesce(user_id, service_account_id, org_id) = :owner_id OR (:shared AND user_id IS NULL))
FOR UPDATE;

-- name: lock_secret(key_hash, now)^
-- A key by a secret that is good, and whether that is its newest one.
SELECT *, key_hash = :key_hash AS newest FROM api_keys
WHERE (key_hash = :key_hash OR (previous_hash = :key_hash AND previous_expires_at > :now)) AND is_active
FOR UPDATE;

-- name: end_api_key(key_id)^
UPDATE api_keys SET is_active = false WHERE id = :key_id RETURNING *;

-- name: list_key_owners(key_id)
-- Whom to write to about a key: whose it is and who made it, of a key that is nobody's the owners.
SELECT u.id, u.email, u.username FROM api_keys k
JOIN members m ON m.org_id = k.org_id JOIN users u ON u.id = m.user_id AND u.deleted_at IS NULL
WHERE k.id = :key_id AND (u.id IN (k.user_id, k.created_by) OR (k.user_id IS NULL AND m.role = 'owner'))
ORDER BY u.id;

-- name: list_owners(org_id)
SELECT u.id, u.email, u.username FROM members m JOIN users u ON u.id = m.user_id AND u.deleted_at IS NULL
WHERE m.org_id = :org_id AND m.role = 'owner' ORDER BY u.id;

-- name: list_people(org_id)
-- Everybody in an organisation, with what says what they may do there.
SELECT u.id, u.email, u.username, u.id AS principal_id, u.role AS owner_role, o.personal_of, m.role AS member_role,
    r.scopes AS role_scopes, team_roles(m.org_id, m.user_id) AS team_roles
FROM members m JOIN users u ON u.id = m.user_id AND u.deleted_at IS NULL JOIN organisations o ON o.id = m.org_id
LEFT JOIN roles r ON r.org_id = o.id AND r.name = m.role
WHERE m.org_id = :org_id ORDER BY u.id;

-- name: update_api_key(key_id, name, scopes, expires_at, rules)^
UPDATE api_keys SET name = :name, scopes = :scopes::text::jsonb, expires_at = :expires_at, rules = :rules::text::jsonb,
    revision = revision + 1
WHERE id = :key_id RETURNING *;

-- name: rotate_api_key(key_id, key_hash, prefix, previous_expires_at)^
UPDATE api_keys SET key_hash = :key_hash, prefix = :prefix, last_used_at = NULL, revision = revision + 1,
    previous_hash = CASE WHEN :previous_expires_at::timestamptz IS NOT NULL THEN key_hash END,
    previous_expires_at = :previous_expires_at,
    previous_last_used_at = CASE WHEN :previous_expires_at::timestamptz IS NOT NULL THEN last_used_at END
WHERE id = :key_id RETURNING *;

-- name: end_overlap(key_id)^
UPDATE api_keys SET previous_hash = NULL, previous_expires_at = NULL, previous_last_used_at = NULL, revision = revision + 1
WHERE id = :key_id RETURNING *;

-- name: list_api_keys(owner_id, org_id, before, most)
SELECT * FROM api_keys
WHERE org_id = :org_id AND coalesce(user_id, service_account_id, org_id) = :owner_id
    AND (:before::text IS NULL OR id < :before)
ORDER BY id DESC LIMIT :most;

-- name: revoke_api_key(key_id, owner_id, org_id)^
UPDATE api_keys SET is_active = false
WHERE id = :key_id AND org_id = :org_id AND coalesce(user_id, service_account_id, org_id) = :owner_id RETURNING *;

-- name: resolve_api_keys(key_hashes)
SELECT s.secret_hash, s.ends_at AS secret_expires_at, EXISTS (SELECT FROM signing_keys g WHERE g.key_id = s.id) AS signs, p.*
FROM (
    SELECT id, key_hash AS secret_hash, NULL::timestamptz AS ends_at FROM api_keys
    WHERE key_hash = ANY(:key_hashes::bytea[])
    UNION ALL
    SELECT id, previous_hash, previous_expires_at FROM api_keys WHERE previous_hash = ANY(:key_hashes::bytea[])
) s JOIN key_principals p ON p.key_id = s.id;

-- name: get_key_principal(key_id, owner_id, org_id)^
SELECT * FROM key_principals
WHERE key_id = :key_id AND (:owner_id::text = '' OR principal_id = :owner_id) AND (:org_id::text = '' OR org_id = :org_id);

-- name: get_member_principal(user_id, org_id)^
SELECT u.id AS principal_id, u.role AS owner_role, o.id AS org_id, o.handle, o.personal_of, o.tier, o.call_limit,
    m.role AS member_role, r.scopes AS role_scopes, team_roles(m.org_id, m.user_id) AS team_roles, u.is_verified,
    f.confirmed_at IS NOT NULL AS second_factor, sso.domain AS sso_domain
FROM users u JOIN members m ON m.user_id = u.id JOIN organisations o ON o.id = m.org_id
LEFT JOIN roles r ON r.org_id = o.id AND r.name = m.role LEFT JOIN totp_factors f ON f.user_id = u.id
LEFT JOIN LATERAL (
    -- Where single sign-on is required: of who has an address of its domains or comes by its provider, but of no owner.
    SELECT d.domain FROM sso_connections c JOIN sso_domains d ON d.org_id = c.org_id AND d.verified_at IS NOT NULL
    WHERE c.org_id = o.id AND c.required AND m.role <> 'owner' AND (
        d.domain = split_part(lower(u.email), '@', 2)
        OR EXISTS (SELECT FROM identities i WHERE i.user_id = u.id AND i.provider = c.org_id)
    ) ORDER BY d.domain = split_part(lower(u.email), '@', 2) DESC, d.domain LIMIT 1
) sso ON true
WHERE u.id = :user_id AND u.deleted_at IS NULL AND (o.id = :org_id OR (:org_id = '' AND o.personal_of = u.id));

-- name: verified_domains(org_id)
SELECT domain FROM sso_domains WHERE org_id = :org_id AND verified_at IS NOT NULL ORDER BY domain;

-- name: find_organisation(handle)$
SELECT o.id FROM organisations o LEFT JOIN users u ON u.id = o.personal_of
WHERE o.handle = :handle AND u.deleted_at IS NULL;

-- name: has_team(team_id, org_id)$
SELECT EXISTS (SELECT FROM teams WHERE id = :team_id AND org_id = :org_id);

-- name: list_team_users(team_id)
SELECT user_id FROM team_members WHERE team_id = :team_id;

-- name: touch_api_keys(key_hashes, used)!
UPDATE api_keys k SET last_used_at = greatest(k.last_used_at, t.used)
FROM unnest(:key_hashes::bytea[], :used::timestamptz[]) AS t (key_hash, used) WHERE k.key_hash = t.key_hash;

-- name: touch_previous_secrets(key_hashes, used)!
UPDATE api_keys k SET previous_last_used_at = greatest(k.previous_last_used_at, t.used)
FROM unnest(:key_hashes::bytea[], :used::timestamptz[]) AS t (key_hash, used) WHERE k.previous_hash = t.key_hash;

-- name: set_key_limit(key_id, owner_id, org_id, call_limit)^
UPDATE api_keys SET call_limit = :call_limit::text::jsonb, revision = revision + 1
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

-- name: add_signing_key(id, key_id, algorithm, public_key, sealed_secret, now)^
INSERT INTO signing_keys (id, key_id, algorithm, public_key, sealed_secret, created_at)
VALUES (:id, :key_id, :algorithm, :public_key, :sealed_secret, :now) RETURNING *;

-- name: list_signing_keys(key_id, before, most)
SELECT * FROM signing_keys WHERE key_id = :key_id AND (:before::text = '' OR id < :before) ORDER BY id DESC LIMIT :most;

-- name: delete_signing_key(key_id, signing_key_id)^
DELETE FROM signing_keys WHERE key_id = :key_id AND id = :signing_key_id RETURNING *;

-- name: signing_keys_of(key_ids)
SELECT s.*, k.user_id, k.org_id FROM signing_keys s JOIN api_keys k ON k.id = s.key_id
WHERE s.key_id = ANY(:key_ids::text[]) ORDER BY s.id DESC;

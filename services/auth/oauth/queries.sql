-- name: add_client(id, org_id, service_account_id, name, secret_hash, scopes, created_by, now)^
INSERT INTO oauth_clients (id, org_id, service_account_id, name, secret_hash, scopes, created_by, created_at)
VALUES (:id, :org_id, :service_account_id, :name, :secret_hash, :scopes::text::jsonb, :created_by, :now)
RETURNING id, service_account_id, name, scopes, created_by, created_at;

-- name: count_clients(org_id)$
SELECT count(*) FROM oauth_clients WHERE org_id = :org_id AND revoked_at IS NULL;

-- name: list_clients(org_id, before, most)
SELECT id, service_account_id, name, scopes, created_by, created_at FROM oauth_clients
WHERE org_id = :org_id AND (:before::text = '' OR id < :before) AND revoked_at IS NULL ORDER BY id DESC LIMIT :most;

-- name: revoke_client(client_id, org_id, now)^
-- The sessions that tools of it hold end with it.
WITH ended AS (DELETE FROM sessions s USING oauth_clients c
    WHERE s.client_id = c.id AND c.id = :client_id AND c.org_id = :org_id RETURNING s.user_id)
UPDATE oauth_clients SET revoked_at = :now WHERE id = :client_id AND org_id = :org_id AND revoked_at IS NULL
RETURNING id, service_account_id, name, scopes, created_by, created_at,
    (SELECT coalesce(array_agg(DISTINCT user_id), '{}') FROM ended) AS users;

-- name: find_client(client_id)^
SELECT * FROM client_principals WHERE client_id = :client_id;

-- name: get_client_principal(client_id, token_id)^
SELECT * FROM client_principals
WHERE client_id = :client_id AND principal_id IS NOT NULL
    AND NOT EXISTS (SELECT FROM revoked_tokens WHERE token_id = :token_id);

-- name: revoke_token(token_id, expires_at)!
INSERT INTO revoked_tokens (token_id, expires_at) VALUES (:token_id, :expires_at) ON CONFLICT DO NOTHING;

-- name: forget(now)!
WITH tokens AS (DELETE FROM revoked_tokens WHERE expires_at < :now)
DELETE FROM device_codes WHERE expires_at < :now;

-- name: add_device(device_hash, user_hash, client_id, scopes, ip_address, now, expires_at, interval_seconds)!
INSERT INTO device_codes
    (device_hash, user_hash, client_id, scopes, ip_address, created_at, expires_at, interval_seconds)
VALUES (:device_hash, :user_hash, :client_id, :scopes::text::jsonb, :ip_address, :now, :expires_at, :interval_seconds);

-- name: lock_device(device_hash)^
SELECT * FROM device_codes WHERE device_hash = :device_hash FOR UPDATE;

-- name: poll_device(device_hash, now, slower)!
UPDATE device_codes SET polled_at = :now, interval_seconds = interval_seconds + :slower WHERE device_hash = :device_hash;

-- name: end_device(device_hash)!
DELETE FROM device_codes WHERE device_hash = :device_hash;

-- name: find_device(user_hash, now)^
-- Nothing once it was decided.
SELECT d.client_id, d.scopes, d.ip_address, d.created_at, d.expires_at, c.name, c.handle
FROM device_codes d LEFT JOIN client_principals c ON c.client_id = d.client_id
WHERE d.user_hash = :user_hash AND d.expires_at > :now AND d.approved IS NULL;

-- name: decide_device(user_hash, user_id, approved, authenticated_at, second_factor, session_id, now)^
-- Two at once: one of them decides. The device comes by what the session came by that lets it in.
UPDATE device_codes SET user_id = :user_id, approved = :approved, authenticated_at = :authenticated_at,
    second_factor = :second_factor, via = coalesce((SELECT via FROM sessions WHERE id = :session_id), '')
WHERE user_hash = :user_hash AND expires_at > :now AND approved IS NULL RETURNING client_id;

-- name: find_refreshed(token_hash)^
-- The session of a refresh token, whether the token is used or not.
SELECT s.id AS session_id, s.user_id, s.client_id, s.scopes
FROM refresh_tokens t JOIN sessions s ON s.id = t.family WHERE t.token_hash = :token_hash AND s.client_id IS NOT NULL;

-- name: find_session(session_id, user_id)^
SELECT id AS session_id, user_id, client_id, scopes FROM sessions WHERE id = :session_id AND user_id = :user_id;

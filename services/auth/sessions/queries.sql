-- name: add_session(id, user_id, now, expires_at, at, second_factor, ip_address, user_agent, client_id, scopes, via)!
INSERT INTO sessions (id, user_id, created_at, last_used_at, expires_at, authenticated_at, second_factor, ip_address,
    user_agent, client_id, scopes, via)
VALUES (:id, :user_id, :now, :now, :expires_at, :at, :second_factor, :ip_address::text::inet, :user_agent, :client_id,
    :scopes::text::jsonb, :via);

-- name: add_refresh_token(token_hash, session_id, user_id, org_id, expires_at)!
INSERT INTO refresh_tokens (token_hash, family, user_id, org_id, expires_at)
VALUES (:token_hash, :session_id, :user_id, :org_id, :expires_at);

-- name: use_refresh_token(token_hash, now)^
-- The session. No row: unknown, used or expired. Two at once: one of them gets it.
UPDATE refresh_tokens SET used_at = :now WHERE token_hash = :token_hash AND used_at IS NULL AND expires_at > :now
RETURNING family AS session_id, org_id;

-- name: use_session(session_id, now, expires_at, ip_address, user_agent)^
-- No row: it has ended.
UPDATE sessions SET last_used_at = :now, expires_at = :expires_at, ip_address = :ip_address::text::inet,
    user_agent = :user_agent
WHERE id = :session_id RETURNING user_id, authenticated_at, second_factor, client_id, scopes, via;

-- name: prove_session(session_id, user_id, now, second_factor)^
-- No row: it has ended.
UPDATE sessions SET authenticated_at = :now, second_factor = second_factor OR :second_factor
WHERE id = :session_id AND user_id = :user_id RETURNING authenticated_at, second_factor, client_id, scopes;

-- name: get_via(session_id, user_id)$
SELECT via FROM sessions WHERE id = :session_id AND user_id = :user_id;

-- name: list_sessions(user_id, before, most, now)
SELECT s.id, s.created_at, s.last_used_at, s.expires_at, host(s.ip_address) AS ip_address, s.user_agent, s.second_factor,
    s.client_id, c.name AS client_name
FROM sessions s LEFT JOIN oauth_clients c ON c.id = s.client_id
WHERE s.user_id = :user_id AND s.expires_at > :now AND (:before::text IS NULL OR s.id < :before)
ORDER BY s.id DESC LIMIT :most;

-- name: find_session_of(token_hash)^
SELECT family AS session_id, user_id, used_at IS NOT NULL AS used FROM refresh_tokens WHERE token_hash = :token_hash;

-- name: end_session(session_id, user_id)$
-- Its refresh tokens are good for nothing without it, and go when they expire.
DELETE FROM sessions WHERE id = :session_id AND user_id = :user_id RETURNING id;

-- name: end_sessions_of(user_id, kept)$
WITH ended AS (DELETE FROM sessions WHERE user_id = :user_id AND id <> :kept RETURNING id),
    devices AS (DELETE FROM device_codes WHERE user_id = :user_id)
SELECT count(*) FROM ended;

-- name: forget_sessions(now)!
WITH tokens AS (DELETE FROM refresh_tokens WHERE expires_at < :now)
DELETE FROM sessions WHERE expires_at < :now;

-- name: add_attempt(state_hash, provider, sealed, redirect_uri, client_state, code_challenge, link_user_id, now, expires_at)!
WITH gone AS (DELETE FROM identity_attempts WHERE expires_at < :now)
INSERT INTO identity_attempts
    (state_hash, provider, sealed, redirect_uri, client_state, code_challenge, link_user_id, expires_at)
VALUES (:state_hash, :provider, :sealed, :redirect_uri, :client_state, :code_challenge, :link_user_id, :expires_at);

-- name: find_attempt(state_hash, now)^
SELECT * FROM identity_attempts WHERE state_hash = :state_hash AND expires_at > :now AND code_hash IS NULL;

-- name: complete_attempt(state_hash, code_hash, found, now)$
-- Of two that come back at once one completes it.
UPDATE identity_attempts SET code_hash = :code_hash, found = :found
WHERE state_hash = :state_hash AND expires_at > :now AND code_hash IS NULL RETURNING provider;

-- name: end_attempt(state_hash)!
DELETE FROM identity_attempts WHERE state_hash = :state_hash;

-- name: find_completed(code_hash, now)^
SELECT * FROM identity_attempts WHERE code_hash = :code_hash AND expires_at > :now;

-- name: take_completed(code_hash, now)$
DELETE FROM identity_attempts WHERE code_hash = :code_hash AND expires_at > :now RETURNING provider;

-- name: find_identity(issuer, subject)^
SELECT i.id, i.user_id FROM identities i JOIN users u ON u.id = i.user_id
WHERE i.issuer = :issuer AND i.subject = :subject AND u.deleted_at IS NULL;

-- name: add_identity(id, user_id, provider, issuer, subject, email, now)^
-- No row: it is linked already.
INSERT INTO identities (id, user_id, provider, issuer, subject, email, created_at, last_used_at)
VALUES (:id, :user_id, :provider, :issuer, :subject, :email, :now, :now)
ON CONFLICT DO NOTHING RETURNING *;

-- name: use_identity(identity_id, email, now)!
UPDATE identities SET last_used_at = :now, email = :email WHERE id = :identity_id;

-- name: list_identities(user_id, before, most)
SELECT * FROM identities WHERE user_id = :user_id AND (:before::text = '' OR id < :before) ORDER BY id DESC LIMIT :most;

-- name: delete_identity(identity_id, user_id)^
DELETE FROM identities WHERE id = :identity_id AND user_id = :user_id RETURNING *;

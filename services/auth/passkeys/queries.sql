-- name: add_challenge(challenge, user_id, now, expires_at)!
WITH gone AS (DELETE FROM passkey_challenges WHERE expires_at < :now)
INSERT INTO passkey_challenges (challenge, user_id, expires_at) VALUES (:challenge, :user_id, :expires_at);

-- name: take_challenge(challenge, user_id, now)$
-- Of two that answer it at once one is looked at.
DELETE FROM passkey_challenges
WHERE challenge = :challenge AND user_id IS NOT DISTINCT FROM :user_id::text AND expires_at > :now RETURNING challenge;

-- name: add_passkey(id, user_id, credential_id, public_key, sign_count, name, synced, now)^
-- No row: it is registered, with whomever.
INSERT INTO passkeys (id, user_id, credential_id, public_key, sign_count, name, synced, created_at)
VALUES (:id, :user_id, :credential_id, :public_key, :sign_count, :name, :synced, :now)
ON CONFLICT DO NOTHING RETURNING *;

-- name: find_passkey(credential_id)^
SELECT * FROM passkeys WHERE credential_id = :credential_id;

-- name: use_passkey(id, sign_count, synced, now)$
UPDATE passkeys SET sign_count = :sign_count, synced = :synced, last_used_at = :now
WHERE id = :id AND sign_count <= :sign_count RETURNING id;

-- name: list_passkeys(user_id, before, most)
SELECT * FROM passkeys WHERE user_id = :user_id AND (:before::text = '' OR id < :before) ORDER BY id DESC LIMIT :most;

-- name: delete_passkey(passkey_id, user_id)^
DELETE FROM passkeys WHERE id = :passkey_id AND user_id = :user_id RETURNING *;

-- name: get_totp(user_id)^
SELECT sealed_secret, confirmed_at, last_step FROM totp_factors WHERE user_id = :user_id;

-- name: enroll_totp(user_id, sealed_secret, now)$
-- No value: there is a confirmed one.
INSERT INTO totp_factors AS t (user_id, sealed_secret, created_at) VALUES (:user_id, :sealed_secret, :now)
ON CONFLICT (user_id) DO UPDATE SET sealed_secret = excluded.sealed_secret, created_at = excluded.created_at, last_step = 0
WHERE t.confirmed_at IS NULL
RETURNING user_id;

-- name: use_step(user_id, sealed_secret, step)$
-- No value: the step, or a later one, was used before. Many at once: one of them gets the row.
UPDATE totp_factors SET last_step = :step
WHERE user_id = :user_id AND sealed_secret = :sealed_secret AND last_step < :step AND confirmed_at IS NOT NULL
RETURNING user_id;

-- name: confirm_totp(user_id, sealed_secret, step, now)$
-- No value: it was confirmed or made anew meanwhile.
UPDATE totp_factors SET last_step = :step, confirmed_at = :now
WHERE user_id = :user_id AND sealed_secret = :sealed_secret AND confirmed_at IS NULL
RETURNING user_id;

-- name: end_totp(user_id)$
DELETE FROM totp_factors WHERE user_id = :user_id AND confirmed_at IS NOT NULL RETURNING user_id;

-- name: lock_totp(user_id)^
SELECT user_id FROM totp_factors WHERE user_id = :user_id AND confirmed_at IS NOT NULL FOR UPDATE;

-- name: end_recovery_codes(user_id)!
DELETE FROM recovery_codes WHERE user_id = :user_id;

-- name: add_recovery_codes(user_id, code_hashes)!
INSERT INTO recovery_codes (user_id, code_hash) SELECT :user_id, unnest(:code_hashes::bytea[]);

-- name: use_recovery_code(user_id, code_hash)$
DELETE FROM recovery_codes WHERE user_id = :user_id AND code_hash = :code_hash RETURNING user_id;

-- name: count_recovery_codes(user_id)$
SELECT count(*) FROM recovery_codes WHERE user_id = :user_id;

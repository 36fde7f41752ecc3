-- name: list_locks(subjects, now)
SELECT subject, locked_until FROM sign_in_failures WHERE subject = ANY(:subjects::text[]) AND locked_until > :now;

-- name: open_failures(subject, now)!
INSERT INTO sign_in_failures (subject, failed_at) VALUES (:subject, :now) ON CONFLICT DO NOTHING;

-- name: count_failure(subject, free, now, since)$
-- The value is the lock there was before; while it lasts nothing is counted. Failures before `since` are forgotten.
WITH before AS (
    SELECT subject, locked_until, CASE WHEN failed_at < :since THEN 0 ELSE failures END AS failures
    FROM sign_in_failures WHERE subject = :subject FOR UPDATE
)
UPDATE sign_in_failures f SET
    failures = CASE WHEN b.locked_until > :now THEN b.failures ELSE b.failures + 1 END,
    failed_at = CASE WHEN b.locked_until > :now THEN f.failed_at ELSE :now END,
    locked_until = CASE
        WHEN b.locked_until > :now THEN b.locked_until
        WHEN b.failures + 1 >= :free::integer
            THEN :now::timestamptz + least(3600, power(2, least(b.failures + 1 - :free::integer, 12))) * interval '1 second'
    END
FROM before b WHERE f.subject = b.subject RETURNING b.locked_until;

-- name: forget_failures(subject, now)$
-- The value is the lock that stays: it is not forgotten before its time.
WITH before AS (SELECT subject, locked_until FROM sign_in_failures WHERE subject = :subject FOR UPDATE),
gone AS (
    DELETE FROM sign_in_failures f USING before b
    WHERE f.subject = b.subject AND (b.locked_until IS NULL OR b.locked_until <= :now)
)
SELECT locked_until FROM before WHERE locked_until > :now;

-- name: end_lock(subject)!
DELETE FROM sign_in_failures WHERE subject = :subject;

-- name: lock_user(user_id)^
SELECT id, email, username, display_name, is_verified, password_hash FROM users
WHERE id = :user_id AND deleted_at IS NULL FOR UPDATE;

-- name: list_codes(user_id, purpose, since)
-- When each was sent, the oldest first.
SELECT created_at FROM mail_codes WHERE user_id = :user_id AND purpose = :purpose AND created_at > :since
ORDER BY created_at;

-- name: add_code(code_hash, purpose, user_id, email, now, expires_at)!
INSERT INTO mail_codes (code_hash, purpose, user_id, email, created_at, expires_at)
VALUES (:code_hash, :purpose, :user_id, :email, :now, :expires_at);

-- name: find_code(code_hash, purpose, now)^
SELECT c.user_id, u.id, u.email, u.username, u.display_name FROM mail_codes c JOIN users u ON u.id = c.user_id
WHERE c.code_hash = :code_hash AND c.purpose = :purpose AND c.expires_at > :now AND u.deleted_at IS NULL;

-- name: take_code(code_hash, purpose, now)^
-- No row: unknown, used or expired. Two at once: one of them gets the row.
DELETE FROM mail_codes WHERE code_hash = :code_hash AND purpose = :purpose AND expires_at > :now
RETURNING user_id, email;

-- name: end_codes(user_id, purpose)!
DELETE FROM mail_codes WHERE user_id = :user_id AND purpose = :purpose;

-- name: verify_user(user_id, email, now)$
-- No value: the account has another address by now.
UPDATE users SET is_verified = true, revision = revision + 1, updated_at = :now
WHERE id = :user_id AND lower(email) = lower(:email) AND deleted_at IS NULL RETURNING id;

-- name: set_password(user_id, password_hash, now)!
UPDATE users SET password_hash = :password_hash, updated_at = :now WHERE id = :user_id;

-- name: forget_codes(now)!
DELETE FROM mail_codes WHERE expires_at < :now;

-- name: forget_old_failures(since, now)!
DELETE FROM sign_in_failures WHERE failed_at < :since AND (locked_until IS NULL OR locked_until < :now);

-- name: count_other_ways(user_id)$
-- To sign in, beside a password.
SELECT (SELECT count(*) FROM passkeys WHERE user_id = :user_id) + (SELECT count(*) FROM identities WHERE user_id = :user_id);

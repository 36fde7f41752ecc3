-- name: add_event(id, subject, payload)!
INSERT INTO outbox (id, subject, payload) VALUES (:id, :subject, :payload);

-- name: take_events(most)
-- Rows being published by another relay are passed over, never waited for; a row whose publication fails comes back.
DELETE FROM outbox WHERE id IN (SELECT id FROM outbox ORDER BY id LIMIT :most FOR UPDATE SKIP LOCKED)
RETURNING id, subject, payload;

-- name: handle_event(event_id, consumer)$
-- True when this consumer had not handled the event.
INSERT INTO inbox (event_id, consumer) VALUES (:event_id, :consumer) ON CONFLICT DO NOTHING RETURNING true;

-- name: claim_key(key_hash, body_hash, request_id, locked_until, now)^
-- Takes a new key, or one whose first call died. No row: somebody holds it, or it has an answer, or another body.
INSERT INTO idempotency_keys AS k (key_hash, body_hash, request_id, locked_until, created_at)
VALUES (:key_hash, :body_hash, :request_id, :locked_until, :now)
ON CONFLICT (key_hash) DO UPDATE SET locked_until = excluded.locked_until
WHERE k.answer IS NULL AND k.locked_until <= :now AND k.body_hash = excluded.body_hash
RETURNING request_id;

-- name: get_key(key_hash)^
SELECT body_hash, request_id, answer, locked_until FROM idempotency_keys WHERE key_hash = :key_hash;

-- name: answer_key(answer, key_hash)!
UPDATE idempotency_keys SET answer = :answer WHERE key_hash = :key_hash AND answer IS NULL;

-- name: hold_keys(key_hashes, locked_until)!
UPDATE idempotency_keys SET locked_until = :locked_until
WHERE key_hash = ANY(:key_hashes::bytea[]) AND answer IS NULL;

-- name: release_key(now, key_hash)!
UPDATE idempotency_keys SET locked_until = :now WHERE key_hash = :key_hash AND answer IS NULL;

-- name: forget_keys(before)!
DELETE FROM idempotency_keys WHERE created_at < :before;

-- name: forget_inbox(before)!
DELETE FROM inbox WHERE handled_at < :before;

-- name: add_task(id, request, now)!
INSERT INTO person_tasks (id, request, next_attempt_at, created_at) VALUES (:id, :request, :now, :now)
ON CONFLICT DO NOTHING;

-- name: claim_task(now, until)^
-- Whoever claims it has until then; after a death it is due again.
UPDATE person_tasks SET attempts = attempts + 1, next_attempt_at = :until WHERE id = (
    SELECT id FROM person_tasks WHERE next_attempt_at <= :now ORDER BY next_attempt_at LIMIT 1 FOR UPDATE SKIP LOCKED
) RETURNING *;

-- name: put_off_task(id, at)!
UPDATE person_tasks SET next_attempt_at = :at WHERE id = :id AND next_attempt_at IS NOT NULL;

-- name: end_task(id)$
-- No value: somebody else has done it meanwhile.
UPDATE person_tasks SET request = NULL, next_attempt_at = NULL WHERE id = :id AND next_attempt_at IS NOT NULL
RETURNING id;

-- name: forget_tasks(before)!
DELETE FROM person_tasks WHERE next_attempt_at IS NULL AND created_at < :before;

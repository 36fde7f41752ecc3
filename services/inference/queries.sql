-- name: lock_org(org_id)!
-- Jobs of one organisation are counted and made one after the other.
SELECT pg_advisory_xact_lock(hashtext('jobs'), hashtext(:org_id));

-- name: count_unfinished(org_id)$
SELECT count(*) FROM jobs WHERE org_id = :org_id AND state IN ('creating', 'queued', 'running');

-- name: add_job(id, org_id, user_id, key_id, model, entries, tags, now, deadline, expires_at)!
INSERT INTO jobs (id, org_id, user_id, key_id, state, model, entries, tags, created_at, deadline, expires_at)
VALUES (:id, :org_id, :user_id, :key_id, 'creating', :model, :entries, :tags, :now, :deadline, :expires_at)
ON CONFLICT DO NOTHING;

-- name: queue_job(id, body)^
UPDATE jobs SET state = 'queued', body = :body, expires_at = NULL WHERE id = :id AND state = 'creating' RETURNING *;

-- name: get_job(id, org_id, now)^
SELECT * FROM jobs WHERE id = :id AND org_id = :org_id AND state <> 'creating'
    AND (expires_at IS NULL OR expires_at > :now);

-- name: list_jobs(org_id, state, before, now, most)
SELECT * FROM jobs WHERE org_id = :org_id AND state <> 'creating' AND (:state::text = '' OR state = :state)
    AND (:before::text IS NULL OR id < :before) AND (expires_at IS NULL OR expires_at > :now)
ORDER BY id DESC LIMIT :most;

-- name: claim_job(id, claim, now, until)^
-- A queued job, or one whose worker has not been heard of.
UPDATE jobs SET state = 'running', claim = :claim, claimed_until = :until, attempts = attempts + 1,
    started_at = coalesce(started_at, :now)
WHERE id = :id AND (state = 'queued' OR (state = 'running' AND claimed_until < :now)) RETURNING *;

-- name: has_ended(id)$
SELECT state IN ('succeeded', 'failed', 'cancelled', 'expired') FROM jobs WHERE id = :id;

-- name: find_stray(now, queued_before)^
-- A job that no message will bring: its worker died, or the message was lost.
SELECT id FROM jobs WHERE (state = 'running' AND claimed_until < :now)
    OR (state = 'queued' AND created_at < :queued_before AND (claimed_until IS NULL OR claimed_until < :queued_before))
ORDER BY id LIMIT 1;

-- name: hold_job(until, id, claim)^
UPDATE jobs SET claimed_until = :until WHERE id = :id AND claim = :claim AND state = 'running'
RETURNING cancelled_at;

-- name: save_part(done, failed, cost, error, id, claim)^
UPDATE jobs SET done = :done, failed = failed + :failed, cost = cost + :cost, error = coalesce(error, :error::bytea),
    attempts = 1
WHERE id = :id AND claim = :claim AND state = 'running' RETURNING *;

-- name: add_part(job_id, first, last, object)!
INSERT INTO job_parts (job_id, first, last, object) VALUES (:job_id, :first, :last, :object);

-- name: list_parts(job_id, start)
SELECT first, last, object FROM job_parts WHERE job_id = :job_id AND last >= :start ORDER BY first;

-- name: release_job(now, id, claim)!
-- Back into the queue, at no cost of attempts.
UPDATE jobs SET state = 'queued', claim = '', claimed_until = :now, attempts = attempts - 1
WHERE id = :id AND claim = :claim AND state = 'running';

-- name: end_job(state, error, now, expires_at, id, claim)^
UPDATE jobs SET state = :state, error = :error::bytea, ended_at = :now, expires_at = :expires_at, claim = '',
    claimed_until = NULL
WHERE id = :id AND claim = :claim AND state = 'running' RETURNING *;

-- name: cancel_job(now, expires_at, id, org_id)^
-- One that nobody runs has ended with this; who runs it is asked to end it.
UPDATE jobs SET cancelled_at = coalesce(cancelled_at, :now),
    state = CASE state WHEN 'queued' THEN 'cancelled' ELSE state END,
    ended_at = CASE state WHEN 'queued' THEN :now ELSE ended_at END,
    expires_at = CASE state WHEN 'queued' THEN :expires_at ELSE expires_at END
WHERE id = :id AND org_id = :org_id AND state IN ('queued', 'running') RETURNING *;

-- name: expire_queued(now, expires_at, most)
UPDATE jobs SET state = 'expired', ended_at = :now, expires_at = :expires_at WHERE id IN (
    SELECT id FROM jobs WHERE state = 'queued' AND deadline < :now LIMIT :most FOR UPDATE SKIP LOCKED
) RETURNING *;

-- name: forget_at(now, id)!
UPDATE jobs SET expires_at = :now WHERE id = :id AND expires_at > :now;

-- name: list_expired(now, most)
SELECT id FROM jobs WHERE expires_at <= :now ORDER BY expires_at LIMIT :most;

-- name: delete_job(id, now)!
DELETE FROM jobs WHERE id = :id AND expires_at <= :now;

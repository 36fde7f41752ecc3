-- name: lock_org(org_id)$
-- Until the transaction ends, nobody else makes an endpoint of the organisation.
SELECT pg_advisory_xact_lock(hashtext('mercat-webhooks-' || :org_id));

-- name: count_endpoints(org_id)$
SELECT count(*) FROM webhook_endpoints WHERE org_id = :org_id;

-- name: add_endpoint(id, org_id, url, description, event_types, sealed_secret, now)^
INSERT INTO webhook_endpoints (id, org_id, url, description, event_types, sealed_secret, created_at, updated_at)
VALUES (:id, :org_id, :url, :description, :event_types, :sealed_secret, :now, :now) RETURNING *;

-- name: get_endpoint(id, org_id)^
SELECT * FROM webhook_endpoints WHERE id = :id AND org_id = :org_id;

-- name: lock_endpoint(id, org_id)^
SELECT * FROM webhook_endpoints WHERE id = :id AND org_id = :org_id FOR UPDATE;

-- name: list_endpoints(org_id, before, most)
SELECT * FROM webhook_endpoints
WHERE org_id = :org_id AND (:before::text IS NULL OR id < :before) ORDER BY id DESC LIMIT :most;

-- name: update_endpoint(id, url, description, event_types, enabled, disabled_reason, fresh, now)^
-- `fresh`: what failed before is forgotten.
UPDATE webhook_endpoints SET url = :url, description = :description, event_types = :event_types, enabled = :enabled,
    disabled_reason = :disabled_reason, revision = revision + 1, updated_at = :now,
    failures = CASE WHEN :fresh THEN 0 ELSE failures END,
    failing_since = CASE WHEN :fresh THEN NULL ELSE failing_since END,
    paused_until = CASE WHEN :fresh THEN NULL ELSE paused_until END
WHERE id = :id RETURNING *;

-- name: set_secret(id, sealed_secret, previous_secret, previous_until, now)^
UPDATE webhook_endpoints SET sealed_secret = :sealed_secret, previous_secret = :previous_secret,
    previous_until = :previous_until, revision = revision + 1, updated_at = :now
WHERE id = :id RETURNING *;

-- name: delete_deliveries(endpoint_id)!
-- Before their endpoint: senders lock in this order.
DELETE FROM webhook_deliveries WHERE endpoint_id = :endpoint_id;

-- name: delete_endpoint(id, org_id)^
DELETE FROM webhook_endpoints WHERE id = :id AND org_id = :org_id RETURNING *;

-- name: add_event(id, org_id, type, body, now)!
INSERT INTO webhook_events (id, org_id, type, body, created_at) VALUES (:id, :org_id, :type, :body, :now);

-- name: add_quota_notice(org_id, quota, key_id, model, hard, limit_calls, reset_time)^
-- No row: it was told.
INSERT INTO quota_notices (org_id, quota, key_id, model, hard, limit_calls, reset_time)
VALUES (:org_id, :quota, :key_id, :model, :hard, :limit_calls, :reset_time)
ON CONFLICT DO NOTHING RETURNING org_id;

-- name: forget_quota_notices(before)!
DELETE FROM quota_notices WHERE reset_time < :before;

-- name: hearers(org_id, type)
SELECT id FROM webhook_endpoints
WHERE org_id = :org_id AND enabled AND (cardinality(event_types) = 0 OR :type = ANY(event_types));

-- name: add_deliveries(ids, event_id, endpoint_ids, once, now)!
-- None to an endpoint that somebody deletes just now.
INSERT INTO webhook_deliveries (id, event_id, endpoint_id, once, due_at, begun_at, created_at)
SELECT t.id, :event_id, t.endpoint_id, :once, :now, :now, :now
FROM unnest(:ids::text[], :endpoint_ids::text[]) AS t (id, endpoint_id)
JOIN webhook_endpoints e ON e.id = t.endpoint_id FOR KEY SHARE OF e;

-- name: claim_deliveries(now, until, busy, counts, each, failing, most)
-- What is due, of each endpoint that is not paused as much as it may have under way beside what it has (`busy` and
-- `counts`); of one that keeps failing (`failing` times) one alone, and no other until its end. A sender that dies leaves
-- them due again.
WITH chosen AS (
    SELECT d.id, e.id AS endpoint_id, e.failures >= :failing AS probes
    FROM webhook_endpoints e
    LEFT JOIN unnest(:busy::text[], :counts::integer[]) AS b (id, count) ON b.id = e.id
    CROSS JOIN LATERAL (
        SELECT id FROM webhook_deliveries
        WHERE endpoint_id = e.id AND state = 'pending' AND due_at <= :now
        ORDER BY due_at LIMIT greatest(
            CASE WHEN e.failures >= :failing THEN 1 ELSE :each::integer END - coalesce(b.count, 0), 0
        ) FOR UPDATE SKIP LOCKED
    ) d
    WHERE e.enabled AND (e.paused_until IS NULL OR e.paused_until <= :now)
    LIMIT :most
), paused AS (
    UPDATE webhook_endpoints SET paused_until = :until WHERE id IN (SELECT endpoint_id FROM chosen WHERE probes)
)
UPDATE webhook_deliveries d SET tries = d.tries + 1, attempts = d.attempts + 1, due_at = :until
FROM chosen, webhook_events v, webhook_endpoints e
WHERE d.id = chosen.id AND v.id = d.event_id AND e.id = d.endpoint_id
RETURNING d.id, d.tries, d.attempts, d.once, v.id AS event_id, v.type, v.body, e.id AS endpoint_id, e.org_id, e.url,
    e.sealed_secret, e.previous_secret, e.previous_until;

-- name: add_attempt(delivery_id, number, at, duration_ms, status_code, error, response)!
INSERT INTO webhook_attempts (delivery_id, number, at, duration_ms, status_code, error, response)
SELECT :delivery_id, :number, :at, :duration_ms, :status_code, :error, :response
WHERE EXISTS (SELECT FROM webhook_deliveries WHERE id = :delivery_id) ON CONFLICT DO NOTHING;

-- name: end_attempt(id, number, state, due_at, status_code, error, ended_at)!
-- Unless another process has it by now, because this one was too slow.
UPDATE webhook_deliveries SET state = :state, due_at = :due_at, status_code = :status_code, error = :error,
    ended_at = :ended_at
WHERE id = :id AND attempts = :number AND state = 'pending';

-- name: endpoint_answered(id)!
UPDATE webhook_endpoints SET failures = 0, failing_since = NULL, paused_until = NULL
WHERE id = :id AND (failures > 0 OR paused_until IS NOT NULL);

-- name: endpoint_failed(id, now)^
UPDATE webhook_endpoints SET failures = failures + 1, failing_since = coalesce(failing_since, :now)
WHERE id = :id RETURNING *;

-- name: pause_endpoint(id, until)!
UPDATE webhook_endpoints SET paused_until = :until WHERE id = :id;

-- name: disable_endpoint(id, reason, now)!
UPDATE webhook_endpoints SET enabled = false, disabled_reason = :reason, paused_until = NULL, revision = revision + 1,
    updated_at = :now
WHERE id = :id AND enabled;

-- name: list_deliveries(endpoint_id, state, before, most)
SELECT d.*, v.type FROM webhook_deliveries d JOIN webhook_events v ON v.id = d.event_id
WHERE d.endpoint_id = :endpoint_id AND (:state::text IS NULL OR d.state = :state)
    AND (:before::text IS NULL OR d.id < :before)
ORDER BY d.id DESC LIMIT :most;

-- name: get_delivery(id, org_id)^
SELECT d.*, v.type, v.body FROM webhook_deliveries d JOIN webhook_events v ON v.id = d.event_id
JOIN webhook_endpoints e ON e.id = d.endpoint_id WHERE d.id = :id AND e.org_id = :org_id;

-- name: list_attempts(delivery_id)
SELECT * FROM webhook_attempts WHERE delivery_id = :delivery_id ORDER BY number;

-- name: redeliver(id, now)!
-- One that is being sent just now is sent once more.
UPDATE webhook_deliveries SET state = 'pending', tries = 0, due_at = :now, begun_at = :now, ended_at = NULL
WHERE id = :id;

-- name: redeliver_failed(endpoint_id, since, now)!
UPDATE webhook_deliveries SET state = 'pending', tries = 0, due_at = :now, begun_at = :now, ended_at = NULL
WHERE endpoint_id = :endpoint_id AND state = 'failed' AND created_at >= :since;

-- name: expire_deliveries(begun_before, now)!
-- Those that waited for an endpoint which was paused or disabled all the time.
UPDATE webhook_deliveries SET state = 'failed', ended_at = :now,
    error = CASE WHEN error = '' THEN 'the endpoint was disabled or failing' ELSE error END
WHERE state = 'pending' AND begun_at < :begun_before AND due_at <= :now;

-- name: forget_events(before)!
DELETE FROM webhook_events WHERE created_at < :before AND NOT EXISTS (
    SELECT FROM webhook_deliveries d WHERE d.event_id = webhook_events.id AND d.state = 'pending'
);

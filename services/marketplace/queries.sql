-- name: put_listing(model, document, now)!
INSERT INTO listings (model, document, changed_at) VALUES (:model, :document, :now)
ON CONFLICT (model) DO UPDATE SET document = excluded.document, changed_at = excluded.changed_at;

-- name: rename_listing(from_model, to_model)!
-- With its statistics; not over one that is there.
UPDATE listings SET model = :to_model
WHERE model = :from_model AND NOT EXISTS (SELECT FROM listings WHERE model = :to_model);

-- name: remove_listing(model)!
DELETE FROM listings WHERE model = :model;

-- name: count_calls(models, calls, latencies)!
UPDATE listings l SET total_requests = l.total_requests + t.calls, latency_us_sum = l.latency_us_sum + t.latency
FROM unnest(:models::text[], :calls::bigint[], :latencies::bigint[]) AS t (model, calls, latency)
WHERE l.model = t.model;

-- name: get_listing(model)^
SELECT * FROM listings WHERE model = :model;

-- name: get_listings(models)
SELECT * FROM listings WHERE model = ANY(:models::text[]);

-- name: all_listings(after, most)
SELECT * FROM listings WHERE model COLLATE "C" > :after ORDER BY model COLLATE "C" LIMIT :most;

-- name: begin_change()$
-- Until the transaction ends, nobody gets past await_changes.
SELECT pg_advisory_xact_lock_shared(hashtext('mercat-listings'));

-- name: await_changes()$
-- Changes under way are committed, and none begins before the transaction ends.
SELECT pg_advisory_xact_lock(hashtext('mercat-listings'));

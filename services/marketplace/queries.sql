-- name: put_listing(model, document, now)!
INSERT INTO listings (model, document, changed_at) VALUES (:model, :document, :now)
ON CONFLICT (model) DO UPDATE SET document = excluded.document, changed_at = excluded.changed_at;

-- name: remove_listing(model)!
DELETE FROM listings WHERE model = :model;

-- name: count_calls(model, calls, latency_us_sum)!
UPDATE listings SET total_requests = total_requests + :calls, latency_us_sum = latency_us_sum + :latency_us_sum
WHERE model = :model;

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

-- name: put_listing(model, document, meaning, now)!
INSERT INTO listings (model, document, meaning, changed_at) VALUES (:model, :document, :meaning, :now)
ON CONFLICT (model) DO UPDATE
SET document = excluded.document, meaning = excluded.meaning, changed_at = excluded.changed_at;

-- name: rename_listing(from_model, to_model)!
-- With its statistics, reviews and places in collections; not over one that is there.
WITH renamed AS (
    UPDATE listings SET model = :to_model
    WHERE model = :from_model AND NOT EXISTS (SELECT FROM listings WHERE model = :to_model)
    RETURNING model
), latencies AS (
    UPDATE model_latencies m SET model = :to_model FROM renamed WHERE m.model = :from_model AND NOT EXISTS (
        SELECT FROM model_latencies WHERE (model, day, bucket) = (:to_model, m.day, m.bucket))
), reviewed AS (
    UPDATE reviews r SET model = :to_model FROM renamed WHERE r.model = :from_model AND NOT EXISTS (
        SELECT FROM reviews WHERE (org_id, model, version) = (r.org_id, :to_model, r.version))
), kept AS (
    UPDATE favourites f SET model = :to_model FROM renamed WHERE f.model = :from_model AND NOT EXISTS (
        SELECT FROM favourites WHERE (org_id, model) = (f.org_id, :to_model))
)
UPDATE collection_models c SET model = :to_model FROM renamed WHERE c.model = :from_model AND NOT EXISTS (
    SELECT FROM collection_models WHERE (collection_id, model) = (c.collection_id, :to_model));

-- name: remove_listing(model)!
-- Its change is noted as note_change does it; of one that is not there none is, or it would name who was erased.
WITH gone AS (DELETE FROM listings WHERE model = :model RETURNING model)
INSERT INTO listing_changes (model, changed_by) SELECT model, pg_current_xact_id() FROM gone
ON CONFLICT (model) DO UPDATE SET changed_by = excluded.changed_by;

-- name: note_change(model)!
INSERT INTO listing_changes (model, changed_by) VALUES (:model, pg_current_xact_id())
ON CONFLICT (model) DO UPDATE SET changed_by = excluded.changed_by;

-- name: note_changes_of(publisher)!
INSERT INTO listing_changes (model, changed_by)
SELECT model, pg_current_xact_id() FROM listings WHERE split_part(model, '/', 1) = :publisher ORDER BY model
ON CONFLICT (model) DO UPDATE SET changed_by = excluded.changed_by;

-- name: horizon()$
-- Transactions before it have ended.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text;

-- name: list_changes(since)
SELECT model, changed_by::text AS changed_by FROM listing_changes WHERE changed_by >= :since::text::xid8;

-- name: count_calls(models, calls, latencies)!
UPDATE listings l SET total_requests = l.total_requests + t.calls, latency_us_sum = l.latency_us_sum + t.latency,
    counted_at = now()
FROM unnest(:models::text[], :calls::bigint[], :latencies::bigint[]) AS t (model, calls, latency)
WHERE l.model = t.model;

-- name: count_latencies(day, models, buckets, calls)!
INSERT INTO model_latencies AS l (model, day, bucket, calls)
SELECT model, :day, bucket, calls
FROM unnest(:models::text[], :buckets::smallint[], :calls::bigint[]) AS t (model, bucket, calls)
WHERE EXISTS (SELECT FROM listings l WHERE l.model = t.model) ORDER BY model, bucket
ON CONFLICT (model, day, bucket) DO UPDATE SET calls = l.calls + excluded.calls;

-- name: list_counted(seconds, every)
-- Models that were called of late; `every`: all that were called within the last 30 days, since days pass.
SELECT model FROM listings
WHERE counted_at > now() - make_interval(secs => :seconds::double precision) OR (:every::boolean AND recent_requests > 0)
ORDER BY model;

-- name: get_latencies(models, today)
SELECT model, bucket, sum(calls)::bigint AS calls,
    coalesce(sum(calls) FILTER (WHERE day > :today::date - 7), 0)::bigint AS week,
    coalesce(sum(calls) FILTER (WHERE day > :today::date - 14 AND day <= :today::date - 7), 0)::bigint AS before
FROM model_latencies WHERE model = ANY(:models::text[]) AND day > :today::date - 30 GROUP BY model, bucket;

-- name: put_latencies(models, requests, p50, p95, trends)!
UPDATE listings l SET recent_requests = t.requests, p50_us = t.p50, p95_us = t.p95, trend = t.trend
FROM unnest(:models::text[], :requests::bigint[], :p50::bigint[], :p95::bigint[], :trends::double precision[])
    AS t (model, requests, p50, p95, trend)
WHERE l.model = t.model AND (l.recent_requests, l.p50_us, l.p95_us, l.trend) IS DISTINCT FROM (t.requests, t.p50, t.p95, t.trend);

-- name: forget_latencies(before)!
DELETE FROM model_latencies WHERE day < :before;

-- name: get_listing(model)^
SELECT l.*, p.display_name AS publisher_name, p.verified AS publisher_verified
FROM listings l LEFT JOIN publisher_profiles p ON p.publisher = split_part(l.model, '/', 1)
WHERE l.model = :model;

-- name: get_listings(models)
SELECT l.*, p.display_name AS publisher_name, p.verified AS publisher_verified
FROM listings l LEFT JOIN publisher_profiles p ON p.publisher = split_part(l.model, '/', 1)
WHERE l.model = ANY(:models::text[]);

-- name: all_listings(after, most)
SELECT l.*, p.display_name AS publisher_name, p.verified AS publisher_verified
FROM listings l LEFT JOIN publisher_profiles p ON p.publisher = split_part(l.model, '/', 1)
WHERE l.model COLLATE "C" > :after ORDER BY l.model COLLATE "C" LIMIT :most;

-- name: begin_change()$
-- Until the transaction ends, nobody gets past await_changes.
SELECT pg_advisory_xact_lock_shared(hashtext('mercat-listings'));

-- name: await_changes()$
-- Changes under way are committed, and none begins before the transaction ends.
SELECT pg_advisory_xact_lock(hashtext('mercat-listings'));

-- name: list_unembedded(encoder, most)
SELECT l.model, l.document, l.meaning FROM listings l
LEFT JOIN embeddings e ON e.model = l.model AND e.encoder = :encoder AND e.meaning = l.meaning
WHERE e.model IS NULL ORDER BY l.model LIMIT :most;

-- name: put_embedding(model, encoder, meaning, vector)!
-- Not of a listing that has gone or changed meanwhile.
INSERT INTO embeddings (model, encoder, meaning, vector)
SELECT model, :encoder, meaning, :vector::text::public.vector FROM listings
WHERE model = :model AND meaning = :meaning FOR SHARE
ON CONFLICT (model) DO UPDATE
SET encoder = excluded.encoder, meaning = excluded.meaning, vector = excluded.vector;

-- name: search_widely(most)$
-- For this transaction: how many neighbours the index of vectors looks at.
SELECT set_config('hnsw.ef_search', :most::text, true);

-- name: nearest(vector, encoder, likeness, most)
SELECT model FROM (
    SELECT model, vector <=> :vector::text::public.vector AS distance FROM embeddings
    WHERE encoder = :encoder ORDER BY vector <=> :vector::text::public.vector LIMIT :most
) n WHERE distance <= 1 - :likeness::double precision ORDER BY distance;

-- name: nearest_to(model, likeness, most)
SELECT model FROM (
    SELECT e.model, e.vector <=> o.vector AS distance FROM embeddings e, (SELECT * FROM embeddings WHERE model = :model) o
    WHERE e.encoder = o.encoder AND e.model <> o.model ORDER BY e.vector <=> o.vector LIMIT :most
) n WHERE distance <= 1 - :likeness::double precision ORDER BY distance;

-- name: is_embedded(model, encoder)$
SELECT EXISTS (SELECT FROM embeddings WHERE model = :model AND encoder = :encoder);

-- name: lock_listing(model)^
SELECT l.*, p.display_name AS publisher_name, p.verified AS publisher_verified
FROM listings l LEFT JOIN publisher_profiles p ON p.publisher = split_part(l.model, '/', 1)
WHERE l.model = :model FOR UPDATE OF l;

-- name: count_reviews(model)!
-- With the listing locked. What is hidden does not count.
UPDATE listings l SET rating_sum = r.total, review_count = r.count
FROM (SELECT coalesce(sum(rating), 0) AS total, count(*) AS count FROM reviews
    WHERE model = :model AND hidden_at IS NULL) r
WHERE l.model = :model;

-- name: forget_other_endings(seen, ids, kinds)!
-- Of the versions seen, those that are not given.
DELETE FROM endings e WHERE e.version_id = ANY(:seen::text[]) AND NOT EXISTS (
    SELECT FROM unnest(:ids::text[], :kinds::smallint[]) AS t (id, kind) WHERE (t.id, t.kind) = (e.version_id, e.kind)
);

-- name: add_endings(model, publisher, ids, kinds, versions, times, sunsets, successors, reasons, now)!
INSERT INTO endings AS e (model, publisher, version, version_id, kind, at, sunset_at, successor, reason)
SELECT :model, :publisher, t.version, t.id, t.kind, t.at, t.sunset_at, t.successor, t.reason
FROM unnest(:ids::text[], :kinds::smallint[], :versions::text[], :times::timestamptz[], :sunsets::timestamptz[],
    :successors::text[], :reasons::text[]) AS t (id, kind, version, at, sunset_at, successor, reason)
ON CONFLICT (version_id, kind) DO UPDATE SET model = excluded.model, publisher = excluded.publisher,
    sunset_at = excluded.sunset_at, successor = excluded.successor, reason = excluded.reason,
    at = CASE WHEN (e.sunset_at, e.successor, e.reason)
        IS DISTINCT FROM (excluded.sunset_at, excluded.successor, excluded.reason)
        THEN greatest(excluded.at, :now::timestamptz) ELSE e.at END;

-- name: forget_endings(model)!
DELETE FROM endings WHERE model = :model;

-- name: known_models()
SELECT model FROM listings UNION SELECT model FROM endings;

-- name: forget_publications(model, versions)!
DELETE FROM publications WHERE model = :model AND NOT version = ANY(:versions::text[]);

-- name: add_publications(model, publisher, versions, ids, times)!
INSERT INTO publications (model, version, version_id, publisher, published_at)
SELECT :model, v.version, v.id, :publisher, v.at
FROM unnest(:versions::text[], :ids::text[], :times::timestamptz[]) AS v (version, id, at) ON CONFLICT DO NOTHING;

-- name: add_records(ids, request_ids, timestamps, org_ids, user_ids, key_ids, model_ids, models, versions, publishers, tokens, units, price_ids, costs, latencies, statuses, regions, tests, lease_ids, tags)
-- The request ids that were not recorded before, and are now.
INSERT INTO usage_records (id, request_id, timestamp, org_id, user_id, api_key_id, model_id, model, version,
    publisher_org_id, tokens_used, units, price_id, cost, latency_us, latency_ms, status_code, region, test, lease_id, tags)
SELECT i, r, t, o, u, k, mi, m, v, p, tk, un::jsonb, pr, c, l, l / 1000.0, s, rg, te, le, tg::jsonb
FROM unnest(:ids::text[], :request_ids::text[], :timestamps::timestamptz[], :org_ids::text[], :user_ids::text[],
    :key_ids::text[], :model_ids::text[], :models::text[], :versions::text[], :publishers::text[], :tokens::bigint[],
    :units::text[], :price_ids::text[], :costs::bigint[], :latencies::bigint[], :statuses::integer[], :regions::text[],
    :tests::boolean[], :lease_ids::text[], :tags::text[])
    AS x (i, r, t, o, u, k, mi, m, v, p, tk, un, pr, c, l, s, rg, te, le, tg)
ON CONFLICT (request_id, timestamp) DO NOTHING RETURNING request_id;

-- name: get_records(request_ids, timestamps)
SELECT r.* FROM usage_records r
JOIN unnest(:request_ids::text[], :timestamps::timestamptz[]) AS x (i, t) ON r.request_id = x.i AND r.timestamp = x.t
ORDER BY r.request_id;

-- name: list_as_consumer(org_id, model, start, until, before, most)
SELECT * FROM usage_records WHERE org_id = :org_id AND (:model::text = '' OR model = :model)
    AND timestamp >= :start AND timestamp < :until AND (:before::text IS NULL OR request_id < :before)
ORDER BY request_id DESC LIMIT :most;

-- name: list_as_publisher(org_id, model, start, until, before, most)
SELECT * FROM usage_records WHERE publisher_org_id = :org_id AND (:model::text = '' OR model = :model)
    AND timestamp >= :start AND timestamp < :until AND (:before::text IS NULL OR request_id < :before)
ORDER BY request_id DESC LIMIT :most;

-- name: summarize_as_consumer(org_id, start, until)
WITH calls AS (
    SELECT model, cost, latency_us, units FROM usage_records
    WHERE org_id = :org_id AND timestamp >= :start AND timestamp < :until
), counted AS (
    SELECT model, jsonb_object_agg(meter, total) AS units FROM (
        SELECT model, u.key AS meter, sum(u.value::bigint) AS total
        FROM calls, jsonb_each_text(units) AS u GROUP BY model, u.key
    ) AS t GROUP BY model
)
SELECT model, count(*) AS calls, sum(cost)::bigint AS cost, avg(latency_us)::bigint AS mean_latency_us,
    coalesce((SELECT c.units FROM counted c WHERE c.model = calls.model), '{}') AS units
FROM calls GROUP BY model ORDER BY cost DESC, model;

-- name: summarize_as_publisher(org_id, start, until)
WITH calls AS (
    SELECT model, cost, latency_us, units FROM usage_records
    WHERE publisher_org_id = :org_id AND timestamp >= :start AND timestamp < :until
), counted AS (
    SELECT model, jsonb_object_agg(meter, total) AS units FROM (
        SELECT model, u.key AS meter, sum(u.value::bigint) AS total
        FROM calls, jsonb_each_text(units) AS u GROUP BY model, u.key
    ) AS t GROUP BY model
)
SELECT model, count(*) AS calls, sum(cost)::bigint AS cost, avg(latency_us)::bigint AS mean_latency_us,
    coalesce((SELECT c.units FROM counted c WHERE c.model = calls.model), '{}') AS units
FROM calls GROUP BY model ORDER BY cost DESC, model;

-- name: count_calls(org_id, key_id, model_id, start, until)$
SELECT count(*) FROM usage_records WHERE timestamp >= :start AND timestamp < :until
    AND (:org_id::text = '' OR org_id = :org_id) AND (:key_id::text = '' OR api_key_id = :key_id)
    AND (:model_id::text = '' OR model_id = :model_id);

-- name: export_records(start, until, after, most)
SELECT * FROM usage_records WHERE timestamp >= :start AND timestamp < :until AND request_id > :after
ORDER BY request_id LIMIT :most;

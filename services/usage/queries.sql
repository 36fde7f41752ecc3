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

-- name: add_correction(id, request_id, timestamp, org_id, user_id, key_id, model_id, model, version, publisher, tokens, units, price_id, cost, region, test, tags, corrects, reason, now)!
INSERT INTO usage_records (id, request_id, timestamp, org_id, user_id, api_key_id, model_id, model, version,
    publisher_org_id, tokens_used, units, price_id, cost, latency_us, latency_ms, status_code, region, test, lease_id, tags,
    corrects, reason, corrected_at)
VALUES (:id, :request_id, :timestamp, :org_id, :user_id, :key_id, :model_id, :model, :version, :publisher, :tokens,
    :units::text::jsonb, :price_id, :cost, 0, 0, 0, :region, :test, '', :tags::text::jsonb, :corrects, :reason, :now)
ON CONFLICT (request_id, timestamp) DO NOTHING;

-- name: get_corrections(request_ids, start, until)
-- A correction has the time of its call.
SELECT request_id, corrects, units, cost, reason, corrected_at FROM usage_records
WHERE corrects = ANY(:request_ids::text[]) AND timestamp >= :start AND timestamp <= :until
ORDER BY corrected_at, request_id;

-- name: get_records(request_ids, timestamps)
SELECT r.* FROM usage_records r
JOIN unnest(:request_ids::text[], :timestamps::timestamptz[]) AS x (i, t) ON r.request_id = x.i AND r.timestamp = x.t
ORDER BY r.request_id;

-- name: list_as_consumer(org_id, model, start, until, before, most)
SELECT * FROM usage_records WHERE org_id = :org_id AND corrects IS NULL AND (:model::text = '' OR model = :model)
    AND timestamp >= :start AND timestamp < :until AND (:before::text IS NULL OR request_id < :before)
ORDER BY request_id DESC LIMIT :most;

-- name: list_as_publisher(org_id, model, start, until, before, most)
SELECT * FROM usage_records WHERE publisher_org_id = :org_id AND corrects IS NULL AND (:model::text = '' OR model = :model)
    AND timestamp >= :start AND timestamp < :until AND (:before::text IS NULL OR request_id < :before)
ORDER BY request_id DESC LIMIT :most;

-- name: summarize_as_consumer(org_id, start, until)
WITH calls AS (
    SELECT model, cost, latency_us, units, corrects FROM usage_records
    WHERE org_id = :org_id AND timestamp >= :start AND timestamp < :until
), counted AS (
    SELECT model, jsonb_object_agg(meter, total) AS units FROM (
        SELECT model, u.key AS meter, sum(u.value::bigint) AS total
        FROM calls, jsonb_each_text(units) AS u GROUP BY model, u.key
    ) AS t GROUP BY model
)
SELECT model, count(*) FILTER (WHERE corrects IS NULL) AS calls, sum(cost)::bigint AS cost,
    coalesce(avg(latency_us) FILTER (WHERE corrects IS NULL), 0)::bigint AS mean_latency_us,
    coalesce((SELECT c.units FROM counted c WHERE c.model = calls.model), '{}') AS units
FROM calls GROUP BY model ORDER BY cost DESC, model;

-- name: summarize_as_publisher(org_id, start, until)
WITH calls AS (
    SELECT model, cost, latency_us, units, corrects FROM usage_records
    WHERE publisher_org_id = :org_id AND timestamp >= :start AND timestamp < :until
), counted AS (
    SELECT model, jsonb_object_agg(meter, total) AS units FROM (
        SELECT model, u.key AS meter, sum(u.value::bigint) AS total
        FROM calls, jsonb_each_text(units) AS u GROUP BY model, u.key
    ) AS t GROUP BY model
)
SELECT model, count(*) FILTER (WHERE corrects IS NULL) AS calls, sum(cost)::bigint AS cost,
    coalesce(avg(latency_us) FILTER (WHERE corrects IS NULL), 0)::bigint AS mean_latency_us,
    coalesce((SELECT c.units FROM counted c WHERE c.model = calls.model), '{}') AS units
FROM calls GROUP BY model ORDER BY cost DESC, model;

-- name: count_calls(org_id, key_id, model_id, start, until)$
SELECT count(*) FROM usage_records WHERE timestamp >= :start AND timestamp < :until AND corrects IS NULL
    AND (:org_id::text = '' OR org_id = :org_id) AND (:key_id::text = '' OR api_key_id = :key_id)
    AND (:model_id::text = '' OR model_id = :model_id);

-- name: export_records(start, until, after, most)
SELECT * FROM usage_records WHERE timestamp >= :start AND timestamp < :until AND request_id > :after
ORDER BY request_id LIMIT :most;

-- name: query(org_id, publisher, meter, aggregation, groups, tag_name, bucket, start, until, model, version, key_id, user_id, tags, most)
-- `latest` is the value beside the greatest request id; ordered aggregates would sort all rows for every question.
SELECT CASE :bucket WHEN '' THEN NULL ELSE date_trunc(:bucket, at, 'UTC') END AS bucket,
    CASE WHEN 'model' = ANY(:groups::text[]) THEN model ELSE '' END AS model,
    CASE WHEN 'version' = ANY(:groups) THEN version ELSE '' END AS version,
    CASE WHEN 'key_id' = ANY(:groups) THEN key_id ELSE '' END AS key_id,
    CASE WHEN 'user_id' = ANY(:groups) THEN user_id ELSE '' END AS user_id,
    CASE WHEN NOT 'tag' = ANY(:groups) THEN NULL WHEN :tag_name = '' THEN tags
        WHEN tags ? :tag_name THEN jsonb_build_object(:tag_name::text, tags -> :tag_name) END AS tags,
    CASE :aggregation WHEN 'sum' THEN sum(value)::bigint WHEN 'count' THEN count(*) WHEN 'max' THEN max(value)
        ELSE split_part(max((request_id || ' ' || value) COLLATE "C") FILTER (WHERE :aggregation = 'latest'), ' ', 2)::bigint
        END AS value
FROM metered(:org_id, :publisher, :meter, :start, :until)
WHERE (:model::text = '' OR model = :model) AND (:version::text = '' OR version = :version)
    AND (:key_id::text = '' OR key_id = :key_id) AND (:user_id::text = '' OR user_id = :user_id)
    AND (:tags::text IS NULL OR tags @> :tags::text::jsonb)
GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY bucket, value DESC, model, version, key_id, user_id, tags LIMIT :most;

-- name: query_unique(org_id, publisher, meter, unique_of, groups, tag_name, bucket, start, until, model, version, key_id, user_id, tags, most)
SELECT bucket, model, version, key_id, user_id, tags, count(*) AS value FROM (
    SELECT DISTINCT CASE :bucket WHEN '' THEN NULL ELSE date_trunc(:bucket, at, 'UTC') END AS bucket,
        CASE WHEN 'model' = ANY(:groups::text[]) THEN model ELSE '' END AS model,
        CASE WHEN 'version' = ANY(:groups) THEN version ELSE '' END AS version,
        CASE WHEN 'key_id' = ANY(:groups) THEN key_id ELSE '' END AS key_id,
        CASE WHEN 'user_id' = ANY(:groups) THEN user_id ELSE '' END AS user_id,
        CASE WHEN NOT 'tag' = ANY(:groups) THEN NULL WHEN :tag_name = '' THEN tags
            WHEN tags ? :tag_name THEN jsonb_build_object(:tag_name::text, tags -> :tag_name) END AS tags,
        CASE :unique_of WHEN 'model' THEN model WHEN 'version' THEN model || '@' || version WHEN 'key_id' THEN key_id
            WHEN 'user_id' THEN user_id WHEN 'value' THEN value::text
            ELSE coalesce(CASE :tag_name WHEN '' THEN tags::text ELSE tags ->> :tag_name END, '') END AS different
    FROM metered(:org_id, :publisher, :meter, :start, :until)
    WHERE (:model::text = '' OR model = :model) AND (:version::text = '' OR version = :version)
        AND (:key_id::text = '' OR key_id = :key_id) AND (:user_id::text = '' OR user_id = :user_id)
        AND (:tags::text IS NULL OR tags @> :tags::text::jsonb)
) d
GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY bucket, value DESC, model, version, key_id, user_id, tags LIMIT :most;

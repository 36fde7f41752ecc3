-- name: add_correction(id, request_id, timestamp, org_id, user_id, key_id, model_id, model, version, publisher, tokens, units, price_id, cost, region, test, rating, tags, corrects, reason, now)!
INSERT INTO usage_records (id, request_id, timestamp, org_id, user_id, api_key_id, model_id, model, version,
    publisher_org_id, tokens_used, units, price_id, cost, latency_us, latency_ms, status_code, region, test, lease_id,
    rating, tags, corrects, reason, corrected_at)
VALUES (:id, :request_id, :timestamp, :org_id, :user_id, :key_id, :model_id, :model, :version, :publisher, :tokens,
    :units::text::jsonb, :price_id, :cost, 0, 0, 0, :region, :test, '', :rating::text::jsonb, :tags::text::jsonb,
    :corrects, :reason, :now)
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

-- name: list_as_consumer(org_id, model, start, until, from_id, before, most)
SELECT * FROM usage_records WHERE org_id = :org_id AND corrects IS NULL AND (:model::text = '' OR model = :model)
    AND timestamp >= :start AND timestamp < :until AND request_id >= :from_id AND request_id < :before
ORDER BY request_id DESC LIMIT :most;

-- name: list_as_publisher(org_id, model, start, until, from_id, before, most)
SELECT * FROM usage_records WHERE publisher_org_id = :org_id AND corrects IS NULL AND (:model::text = '' OR model = :model)
    AND timestamp >= :start AND timestamp < :until AND request_id >= :from_id AND request_id < :before
ORDER BY request_id DESC LIMIT :most;

-- name: count_calls(org_id, key_id, model_id, start, until)$
SELECT count(*) FROM usage_records WHERE timestamp >= :start AND timestamp < :until AND corrects IS NULL
    AND (:org_id::text = '' OR org_id = :org_id) AND (:key_id::text = '' OR api_key_id = :key_id)
    AND (:model_id::text = '' OR model_id = :model_id);

-- name: sum_units(org_id, model_id, start, until)
-- An answer from the cache that costs nothing takes no position, and neither does a test call.
SELECT u.key AS meter, sum(u.value::bigint)::bigint AS total
FROM usage_records r, jsonb_each_text(r.units) AS u
WHERE r.org_id = :org_id AND r.model_id = :model_id AND r.timestamp >= :start AND r.timestamp < :until AND NOT r.test
    AND r.rating ->> 'share_ppm' IS DISTINCT FROM '0'
GROUP BY u.key;

-- name: query(org_id, publisher, meter, aggregation, groups, tag_name, bucket, start, until, first, last, model, version, key_id, user_ids, tags, most)
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
FROM metered(:org_id, :publisher, :meter, :start, :until, :first, :last)
WHERE (:model::text = '' OR model = :model) AND (:version::text = '' OR version = :version)
    AND (:key_id::text = '' OR key_id = :key_id) AND (:user_ids::text[] IS NULL OR user_id = ANY(:user_ids))
    AND (:tags::text IS NULL OR tags @> :tags::text::jsonb)
GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY bucket, value DESC, model, version, key_id, user_id, tags LIMIT :most;

-- name: query_unique(org_id, publisher, meter, unique_of, groups, tag_name, bucket, start, until, first, last, model, version, key_id, user_ids, tags, most)
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
    FROM metered(:org_id, :publisher, :meter, :start, :until, :first, :last)
    WHERE (:model::text = '' OR model = :model) AND (:version::text = '' OR version = :version)
        AND (:key_id::text = '' OR key_id = :key_id) AND (:user_ids::text[] IS NULL OR user_id = ANY(:user_ids))
        AND (:tags::text IS NULL OR tags @> :tags::text::jsonb)
) d
GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY bucket, value DESC, model, version, key_id, user_id, tags LIMIT :most;

-- name: lock_inserts()!
-- Waits for inserts under way; those that come see what this transaction did.
LOCK TABLE ONLY usage_records IN SHARE MODE;

-- name: lock_rollups()$
SELECT pg_advisory_xact_lock(hashtext('mercat-usage-rollups'));

-- name: get_progress()^
-- `rolled`: every hour before it is rolled up, or has no records but what came late and is about to be added.
SELECT p.through, p.kept_from,
    least(p.through, (SELECT min(hour) FROM stale_hours WHERE hour >= p.kept_from)) AS rolled
FROM rollup_progress p;

-- name: first_record(after)$
SELECT timestamp FROM usage_records WHERE request_id >= :after ORDER BY request_id LIMIT 1;

-- name: advance(start, through)!
-- The hours from `start` up to `through` are to be rolled up.
WITH moved AS (UPDATE rollup_progress SET through = :through)
INSERT INTO stale_hours
SELECT * FROM generate_series(:start::timestamptz, :through::timestamptz - interval '1 hour', interval '1 hour');

-- name: take_stale_hours(most)
-- The oldest, and those of its day that follow it.
WITH next AS (
    SELECT DISTINCT hour FROM stale_hours
    WHERE hour < (SELECT date_trunc('day', min(hour), 'UTC') + interval '1 day' FROM stale_hours) ORDER BY hour LIMIT :most
), taken AS (DELETE FROM stale_hours s USING next WHERE s.hour = next.hour)
SELECT hour FROM next ORDER BY hour;

-- name: forget_rollups(hours, day)!
DELETE FROM usage_rollups
WHERE (span = 'hour' AND start = ANY(:hours::timestamptz[])) OR (span = 'day' AND start = :day::timestamptz);

-- name: roll_up_hours(hours, start, until, first, last)!
-- A corrected call is counted once, with what it counts in truth; a correction has the time of its call.
WITH records AS NOT MATERIALIZED (
    SELECT * FROM usage_records
    WHERE timestamp >= :start AND timestamp < :until AND date_trunc('hour', timestamp, 'UTC') = ANY(:hours::timestamptz[])
        AND ((request_id >= :first AND request_id < :last)
            OR (request_id >= replace(:first, 'req', 'cor') AND request_id < replace(:last, 'req', 'cor')))
), expanded AS NOT MATERIALIZED (
    SELECT date_trunc('hour', r.timestamp, 'UTC') AS hour, r.org_id, r.publisher_org_id, r.model,
        coalesce(r.corrects, r.request_id) AS call, u.meter, u.value
    FROM records r CROSS JOIN LATERAL (
        SELECT key, value::bigint FROM jsonb_each_text(r.units)
        UNION ALL SELECT 'cost_nanos', CASE WHEN r.test THEN 0 ELSE r.cost END
        UNION ALL SELECT 'latency_us', r.latency_us
    ) u (meter, value)
), corrected AS (
    SELECT DISTINCT corrects FROM records WHERE corrects IS NOT NULL
), counted AS (
    SELECT * FROM expanded WHERE call NOT IN (SELECT corrects FROM corrected)
    UNION ALL SELECT hour, org_id, publisher_org_id, model, call, meter, sum(value)
    FROM expanded WHERE call IN (SELECT corrects FROM corrected)
    GROUP BY hour, org_id, publisher_org_id, model, call, meter
)
INSERT INTO usage_rollups
SELECT 'hour', hour, org_id, publisher_org_id, model, meter, count(*), sum(value), max(value)
FROM counted GROUP BY hour, org_id, publisher_org_id, model, meter;

-- name: roll_up_day(start, until)!
INSERT INTO usage_rollups
SELECT 'day', :start, org_id, publisher_org_id, model, meter, sum(calls), sum(total), max(most)
FROM usage_rollups WHERE span = 'hour' AND start >= :start AND start < :until
GROUP BY org_id, publisher_org_id, model, meter;

-- name: sum_records(org_id, publisher, start, until, first, last)
WITH records AS NOT MATERIALIZED (
    SELECT * FROM usage_records WHERE timestamp >= :start AND timestamp < :until
        AND ((request_id >= :first AND request_id < :last)
            OR (request_id >= replace(:first, 'req', 'cor') AND request_id < replace(:last, 'req', 'cor')))
)
SELECT r.model, u.meter, count(*) FILTER (WHERE r.corrects IS NULL) AS calls, sum(u.value)::bigint AS total
FROM (
    SELECT * FROM records WHERE NOT :publisher::boolean AND org_id = :org_id
    UNION ALL SELECT * FROM records WHERE :publisher AND publisher_org_id = :org_id
) r CROSS JOIN LATERAL (
    SELECT key, value::bigint FROM jsonb_each_text(r.units)
    UNION ALL SELECT 'cost_nanos', CASE WHEN r.test THEN 0 ELSE r.cost END
    UNION ALL SELECT 'latency_us', r.latency_us
) u (meter, value)
GROUP BY r.model, u.meter;

-- name: sum_rollups(org_id, publisher, span, start, until)
WITH rollups AS NOT MATERIALIZED (
    SELECT * FROM usage_rollups WHERE span = :span AND start >= :start AND start < :until
)
SELECT model, meter, sum(calls)::bigint AS calls, sum(total)::bigint AS total
FROM (
    SELECT * FROM rollups WHERE NOT :publisher::boolean AND org_id = :org_id
    UNION ALL SELECT * FROM rollups WHERE :publisher AND publisher_org_id = :org_id
) r GROUP BY model, meter;

-- name: query_rollups(org_id, publisher, span, meter, aggregation, by_model, bucket, start, until, model, most)
WITH rollups AS NOT MATERIALIZED (
    SELECT * FROM usage_rollups
    WHERE span = :span AND start >= :start AND start < :until AND meter = :meter AND (:model::text = '' OR model = :model)
)
SELECT CASE :bucket WHEN '' THEN NULL ELSE date_trunc(:bucket, start, 'UTC') END AS bucket,
    CASE WHEN :by_model THEN model ELSE '' END AS model, '' AS version, '' AS key_id, '' AS user_id, NULL AS tags,
    CASE :aggregation WHEN 'sum' THEN sum(total)::bigint WHEN 'count' THEN sum(calls)::bigint ELSE max(most) END AS value
FROM (
    SELECT * FROM rollups WHERE NOT :publisher::boolean AND org_id = :org_id
    UNION ALL SELECT * FROM rollups WHERE :publisher AND publisher_org_id = :org_id
) r GROUP BY 1, 2 LIMIT :most;

-- name: add_late(start, until)!
-- What came into an hour whose other records are not kept any more: each once. A correction is no call of its own.
WITH late AS (
    INSERT INTO late_records SELECT request_id FROM usage_records WHERE timestamp >= :start AND timestamp < :until
    ON CONFLICT DO NOTHING RETURNING request_id
), counted AS (
    SELECT r.org_id, r.publisher_org_id, r.model, r.corrects IS NULL AS call, u.meter, u.value
    FROM usage_records r JOIN late l ON l.request_id = r.request_id CROSS JOIN LATERAL (
        SELECT key, value::bigint FROM jsonb_each_text(r.units)
        UNION ALL SELECT 'cost_nanos', CASE WHEN r.test THEN 0 ELSE r.cost END
        UNION ALL SELECT 'latency_us', r.latency_us
    ) u (meter, value)
    WHERE r.timestamp >= :start AND r.timestamp < :until
)
INSERT INTO usage_rollups AS t
SELECT 'hour', :start, org_id, publisher_org_id, model, meter, count(*) FILTER (WHERE call), sum(value),
    coalesce(max(value) FILTER (WHERE call), 0)
FROM counted GROUP BY org_id, publisher_org_id, model, meter
ON CONFLICT (span, start, org_id, publisher_org_id, model, meter) DO UPDATE
SET calls = t.calls + excluded.calls, total = t.total + excluded.total, most = greatest(t.most, excluded.most);

-- name: forget_day(day)!
DELETE FROM usage_rollups WHERE span = 'day' AND start = :day;

-- name: oldest_partition()$
SELECT min(c.relname) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'usage_records'::regclass AND c.relname ~ '^usage_records_[0-9]{4}_[0-9]{2}$';

-- name: count_differences(start, until)$
-- Sums of which the records of a time, its hours and its days do not say the same.
WITH recorded AS (
    SELECT r.org_id, r.publisher_org_id, r.model, u.meter, sum(u.value) AS total,
        count(*) FILTER (WHERE u.meter = 'latency_us' AND r.corrects IS NULL) AS calls
    FROM usage_records r CROSS JOIN LATERAL (
        SELECT key, value::bigint FROM jsonb_each_text(r.units)
        UNION ALL SELECT 'cost_nanos', CASE WHEN r.test THEN 0 ELSE r.cost END
        UNION ALL SELECT 'latency_us', r.latency_us
    ) u (meter, value)
    WHERE r.timestamp >= :start AND r.timestamp < :until GROUP BY r.org_id, r.publisher_org_id, r.model, u.meter
), rolled AS (
    SELECT span, org_id, publisher_org_id, model, meter, sum(total) AS total,
        sum(calls) FILTER (WHERE meter = 'latency_us') AS calls
    FROM usage_rollups WHERE start >= :start AND start < :until GROUP BY span, org_id, publisher_org_id, model, meter
)
SELECT count(*) FROM recorded r
FULL JOIN (SELECT * FROM rolled WHERE span = 'hour') h USING (org_id, publisher_org_id, model, meter)
FULL JOIN (SELECT * FROM rolled WHERE span = 'day') d USING (org_id, publisher_org_id, model, meter)
WHERE r.total IS DISTINCT FROM h.total OR r.total IS DISTINCT FROM d.total
    OR nullif(r.calls, 0) IS DISTINCT FROM h.calls OR nullif(r.calls, 0) IS DISTINCT FROM d.calls;

-- name: keep_from(moment)!
UPDATE rollup_progress SET kept_from = :moment;

-- name: sum_dropped()
-- What calls whose records are not kept have cost, by month; with what came late and is not in the rollups yet.
SELECT month, org_id, publisher_org_id, sum(cost)::bigint AS cost FROM (
    SELECT date_trunc('month', start, 'UTC') AS month, org_id, publisher_org_id, total AS cost FROM usage_rollups
    WHERE span = 'hour' AND meter = 'cost_nanos' AND start < (SELECT kept_from FROM rollup_progress)
    UNION ALL SELECT date_trunc('month', r.timestamp, 'UTC'), r.org_id, r.publisher_org_id, r.cost FROM usage_records r
    WHERE r.timestamp < (SELECT kept_from FROM rollup_progress) AND NOT r.test
        AND NOT EXISTS (SELECT FROM late_records l WHERE l.request_id = r.request_id)
) s GROUP BY month, org_id, publisher_org_id HAVING sum(cost) <> 0;

-- name: find_call(org_id, model, version)$
SELECT request_id FROM usage_records
WHERE org_id = :org_id AND model = :model AND version = :version AND corrects IS NULL AND NOT test LIMIT 1;

-- name: list_version_callers(model, version, start)
SELECT DISTINCT org_id FROM usage_records
WHERE timestamp >= :start AND model = :model AND version = :version AND corrects IS NULL AND NOT test ORDER BY org_id;

-- name: list_callers(org_id, start, rolled, first)
-- Whole days that are rolled up, and the records since.
SELECT org_id, array_agg(DISTINCT model ORDER BY model) AS models FROM (
    SELECT org_id, model FROM usage_rollups
    WHERE span = 'day' AND start >= :start AND meter = 'latency_us' AND (:org_id::text = '' OR org_id = :org_id)
    UNION ALL SELECT org_id, model FROM usage_records
    WHERE timestamp >= :rolled AND request_id >= :first AND corrects IS NULL AND (:org_id::text = '' OR org_id = :org_id)
) c GROUP BY org_id ORDER BY org_id;

-- What the caller set on a call: {name: value}; none is NULL, which takes no room.
ALTER TABLE usage_records ADD COLUMN tags jsonb;

-- A correction is a record of its own: the difference to the call it refers to, whose time it has, so that sums of a
-- time need nothing else. Its request_id is `cor_…`.
ALTER TABLE usage_records ADD COLUMN corrects text COLLATE "C", ADD COLUMN reason text, ADD COLUMN corrected_at timestamptz;
CREATE INDEX usage_records_corrects ON usage_records (corrects) WHERE corrects IS NOT NULL;

-- What calls counted of one meter, each call once and as corrected. `meter` is one of their units, or cost_nanos (with a
-- test key nothing) or latency_us. `first` and `last` bound the ids of the time, which are in its order and indexed.
CREATE FUNCTION metered(
    org text, publisher boolean, meter text, start timestamptz, until timestamptz, first text, last text
)
RETURNS TABLE (request_id text, at timestamptz, model text, version text, key_id text, user_id text, tags jsonb, value bigint)
LANGUAGE sql STABLE AS $$
    WITH records AS NOT MATERIALIZED (
        SELECT r.*, CASE meter WHEN 'cost_nanos' THEN CASE WHEN r.test THEN 0 ELSE r.cost END
            WHEN 'latency_us' THEN r.latency_us ELSE (r.units ->> meter)::bigint END AS counted
        FROM usage_records r WHERE r.timestamp >= start AND r.timestamp < until
    )
    SELECT r.request_id, r.timestamp, r.model, r.version, r.api_key_id, r.user_id, r.tags,
        (coalesce(r.counted, 0) + coalesce(f.counted, 0))::bigint
    FROM (
        SELECT * FROM records
        WHERE NOT publisher AND org_id = org AND corrects IS NULL AND records.request_id >= first AND records.request_id < last
        UNION ALL SELECT * FROM records
        WHERE publisher AND publisher_org_id = org AND corrects IS NULL AND records.request_id >= first
            AND records.request_id < last
    ) r LEFT JOIN (
        SELECT corrects, sum(counted) AS counted FROM records WHERE corrects IS NOT NULL GROUP BY corrects
    ) f ON f.corrects = r.request_id
    WHERE r.counted IS NOT NULL OR f.counted IS NOT NULL
$$;

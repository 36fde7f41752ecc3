-- name: export_usage_records(org_ids)
SELECT (to_jsonb(r) - ARRAY['lease_id'])::text AS line FROM usage_records r WHERE r.org_id = ANY(:org_ids::text[])
ORDER BY r.request_id;

-- name: export_usage_rollups(org_ids)
SELECT to_jsonb(r)::text AS line FROM usage_rollups r
WHERE r.org_id = ANY(:org_ids::text[]) OR r.publisher_org_id = ANY(:org_ids::text[]) ORDER BY r.start, r.span, r.model;

-- name: models_of(org_ids, handles)
-- By the names that they are called by.
SELECT DISTINCT r.model FROM usage_records r JOIN unnest(:org_ids::text[], :handles::text[]) AS t (org_id, handle)
    ON r.publisher_org_id = t.org_id AND starts_with(r.model, t.handle || '/');

-- name: erase_some_tags(org_ids)!
UPDATE usage_records SET tags = NULL WHERE (request_id, timestamp) IN (
    SELECT request_id, timestamp FROM usage_records WHERE org_id = ANY(:org_ids::text[]) AND tags IS NOT NULL LIMIT 5000
);

-- name: rename_models_of_some_records(org_ids, handles, pseudonyms)!
UPDATE usage_records r SET model = t.new || substr(r.model, length(t.old) + 1)
FROM (
    SELECT u.request_id, u.timestamp, n.old, n.new
    FROM unnest(:org_ids::text[], :handles::text[], :pseudonyms::text[]) AS n (org_id, old, new)
    JOIN usage_records u ON u.publisher_org_id = n.org_id AND starts_with(u.model, n.old || '/') LIMIT 5000
) t WHERE r.request_id = t.request_id AND r.timestamp = t.timestamp;

-- name: rename_models_of_rollups(org_ids, handles, pseudonyms)!
-- An hour may have been rolled up while some of its records were renamed: then it has rows of both names.
WITH gone AS (
    DELETE FROM usage_rollups r USING unnest(:org_ids::text[], :handles::text[], :pseudonyms::text[]) AS t (org_id, old, new)
    WHERE r.publisher_org_id = t.org_id AND starts_with(r.model, t.old || '/')
    RETURNING r.span, r.start, r.org_id, r.publisher_org_id, t.new || substr(r.model, length(t.old) + 1) AS model, r.meter,
        r.calls, r.total, r.most
)
INSERT INTO usage_rollups AS u (span, start, org_id, publisher_org_id, model, meter, calls, total, most)
SELECT * FROM gone
ON CONFLICT (span, start, org_id, publisher_org_id, model, meter) DO UPDATE
    SET calls = u.calls + excluded.calls, total = u.total + excluded.total, most = greatest(u.most, excluded.most);

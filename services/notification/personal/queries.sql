-- name: export_webhook_endpoints(org_ids)
SELECT (to_jsonb(e) - ARRAY['sealed_secret', 'previous_secret'])::text AS line FROM webhook_endpoints e
WHERE e.org_id = ANY(:org_ids::text[]) ORDER BY e.id;

-- name: export_webhook_events(org_ids)
SELECT to_jsonb(v)::text AS line FROM webhook_events v WHERE v.org_id = ANY(:org_ids::text[]) ORDER BY v.id;

-- name: export_webhook_deliveries(org_ids)
SELECT (to_jsonb(d) || jsonb_build_object('attempts', (
    SELECT coalesce(jsonb_agg(to_jsonb(a) - ARRAY['delivery_id'] ORDER BY a.number), '[]')
    FROM webhook_attempts a WHERE a.delivery_id = d.id
)))::text AS line
FROM webhook_deliveries d JOIN webhook_endpoints e ON e.id = d.endpoint_id
WHERE e.org_id = ANY(:org_ids::text[]) ORDER BY d.id;

-- name: count_events(org_ids)$
SELECT count(*) FROM webhook_events WHERE org_id = ANY(:org_ids::text[]);

-- name: erase_deliveries(org_ids)!
-- With their attempts. Before their endpoint: senders lock in this order.
DELETE FROM webhook_deliveries d USING webhook_endpoints e
WHERE e.id = d.endpoint_id AND e.org_id = ANY(:org_ids::text[]);

-- name: erase_endpoints(org_ids)!
DELETE FROM webhook_endpoints WHERE org_id = ANY(:org_ids::text[]);

-- name: erase_events(org_ids)!
DELETE FROM webhook_events WHERE org_id = ANY(:org_ids::text[]);

-- name: erase_quota_notices(org_ids)!
DELETE FROM quota_notices WHERE org_id = ANY(:org_ids::text[]);

-- name: erase_addresses(user_id)!
-- From where they did something in organisations of several people.
UPDATE webhook_events SET body = regexp_replace(body, '"ipAddress":"[^"]*"', '"ipAddress":""')
WHERE strpos(body, '"userId":"' || :user_id || '"') > 0;

-- name: erase_words_of_some_events(handles)!
-- Of others: what they said to those who call their models or decide about access, and when they asked for it.
UPDATE webhook_events v SET body = regexp_replace(v.body, '"(reason|message)":"(?:[^"\\]|\\.)+"', '"\1":""', 'g')
FROM (
    SELECT DISTINCT e.id FROM unnest(:handles::text[]) AS t (old)
    JOIN webhook_events e ON strpos(e.body, '"model":"' || t.old || '/') > 0
        OR strpos(e.body, '"organisation":"' || t.old || '"') > 0
    WHERE e.body ~ '"(reason|message)":"[^"]' LIMIT 5000
) n WHERE v.id = n.id;

-- name: rename_models_of_some_events(handles, pseudonyms)!
-- Of others, which call models of theirs, or were asked for access by them.
UPDATE webhook_events v SET body = replace(replace(v.body, '"' || n.old || '/', '"' || n.new || '/'),
    '"organisation":"' || n.old || '"', '"organisation":"' || n.new || '"')
FROM (
    SELECT DISTINCT ON (e.id) e.id, t.old, t.new FROM unnest(:handles::text[], :pseudonyms::text[]) AS t (old, new)
    JOIN webhook_events e ON strpos(e.body, '"' || t.old || '/') > 0
        OR strpos(e.body, '"organisation":"' || t.old || '"') > 0
    ORDER BY e.id LIMIT 5000
) n WHERE v.id = n.id;

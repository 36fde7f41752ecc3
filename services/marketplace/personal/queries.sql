-- name: export_reviews(org_ids)
SELECT (to_jsonb(r) - ARRAY['reply', 'replied_at'] || jsonb_build_object('before', (
    SELECT coalesce(jsonb_agg(to_jsonb(e) - ARRAY['review_id'] ORDER BY e.number), '[]')
    FROM review_edits e WHERE e.review_id = r.id
)))::text AS line FROM reviews r WHERE r.org_id = ANY(:org_ids::text[]) ORDER BY r.id;

-- name: export_replies_to_reviews(handles)
SELECT jsonb_build_object('review_id', r.id, 'model', r.model, 'version', r.version, 'reply', r.reply,
    'replied_at', r.replied_at)::text AS line
FROM reviews r WHERE split_part(r.model, '/', 1) = ANY(:handles::text[]) AND r.reply <> '' ORDER BY r.id;

-- name: export_reports_of_reviews(org_ids)
SELECT to_jsonb(r)::text AS line FROM review_reports r WHERE r.org_id = ANY(:org_ids::text[]) ORDER BY r.id;

-- name: export_collections(org_ids)
SELECT (to_jsonb(c) || jsonb_build_object('models', (
    SELECT coalesce(jsonb_agg(m.model ORDER BY m.number), '[]') FROM collection_models m WHERE m.collection_id = c.id
)))::text AS line FROM collections c WHERE c.org_id = ANY(:org_ids::text[]) ORDER BY c.id;

-- name: export_favourites(org_ids)
SELECT (to_jsonb(f) - ARRAY['number'])::text AS line FROM favourites f WHERE f.org_id = ANY(:org_ids::text[])
ORDER BY f.number;

-- name: export_follows(org_ids)
SELECT to_jsonb(f)::text AS line FROM follows f WHERE f.org_id = ANY(:org_ids::text[]) ORDER BY f.org_id, f.publisher;

-- name: export_preferences(org_ids)
SELECT to_jsonb(p)::text AS line FROM discovery_preferences p WHERE p.org_id = ANY(:org_ids::text[]) ORDER BY p.org_id;

-- name: export_profiles(org_ids)
SELECT to_jsonb(p)::text AS line FROM publisher_profiles p WHERE p.org_id = ANY(:org_ids::text[]) ORDER BY p.org_id;

-- name: listed(handles)
SELECT model FROM listings WHERE split_part(model, '/', 1) = ANY(:handles::text[]) ORDER BY model;

-- name: reviewed(org_ids, handles)
-- Models of others that they have reviewed.
SELECT DISTINCT model FROM reviews
WHERE org_id = ANY(:org_ids::text[]) AND split_part(model, '/', 1) <> ALL(:handles::text[]) ORDER BY model;

-- name: erase_reviews(org_ids, handles)!
-- With what they said before and reports of them. Of models that end others' go too, and with them what was replied.
DELETE FROM reviews WHERE org_id = ANY(:org_ids::text[]) OR split_part(model, '/', 1) = ANY(:handles::text[]);

-- name: erase_reports(org_ids)!
DELETE FROM review_reports WHERE org_id = ANY(:org_ids::text[]);

-- name: erase_collections(org_ids)!
-- With their places. Those of the platform are not theirs.
DELETE FROM collections WHERE org_id = ANY(:org_ids::text[]) AND NOT curated;

-- name: erase_places(handles)!
-- Of models that end, in others' collections.
DELETE FROM collection_models WHERE split_part(model, '/', 1) = ANY(:handles::text[]);

-- name: erase_favourites(org_ids, handles)!
DELETE FROM favourites WHERE org_id = ANY(:org_ids::text[]) OR split_part(model, '/', 1) = ANY(:handles::text[]);

-- name: erase_follows(org_ids, handles)!
DELETE FROM follows WHERE org_id = ANY(:org_ids::text[]) OR publisher = ANY(:handles::text[]);

-- name: erase_profiles(org_ids)!
DELETE FROM publisher_profiles WHERE org_id = ANY(:org_ids::text[]);

-- name: erase_preferences(org_ids)!
DELETE FROM discovery_preferences WHERE org_id = ANY(:org_ids::text[]);

-- name: erase_together(handles)!
DELETE FROM called_together
WHERE split_part(model, '/', 1) = ANY(:handles::text[]) OR split_part(other, '/', 1) = ANY(:handles::text[]);

-- name: erase_latencies(handles)!
DELETE FROM model_latencies WHERE split_part(model, '/', 1) = ANY(:handles::text[]);

-- name: erase_listings(handles)!
-- With their embeddings and publications.
DELETE FROM listings WHERE split_part(model, '/', 1) = ANY(:handles::text[]);

-- name: erase_endings(handles)!
-- And what they named as successors of others'.
WITH gone AS (DELETE FROM endings WHERE publisher = ANY(:handles::text[]))
UPDATE endings SET successor = ''
WHERE split_part(successor, '/', 1) = ANY(:handles::text[]) AND publisher <> ALL(:handles::text[]);

-- name: erase_changes(handles)!
DELETE FROM listing_changes WHERE split_part(model, '/', 1) = ANY(:handles::text[]);

-- name: lock_together()$
SELECT pg_try_advisory_xact_lock(hashtext('mercat-called-together'));

-- name: forget_together()!
DELETE FROM called_together;

-- name: put_together(models, others, accounts, scores)!
INSERT INTO called_together
SELECT t.* FROM unnest(:models::text[], :others::text[], :accounts::integer[], :scores::double precision[])
    AS t (model, other, accounts, score)
WHERE EXISTS (SELECT FROM listings l WHERE l.model = t.model) AND EXISTS (SELECT FROM listings l WHERE l.model = t.other);

-- name: list_together(models, most)
-- What goes with each, the best first.
SELECT t.model, t.other, t.score FROM called_together t JOIN listings l ON l.model = t.other
WHERE t.model = ANY(:models::text[]) ORDER BY t.score DESC, t.other LIMIT :most;

-- name: list_opted_out()
SELECT org_id FROM discovery_preferences WHERE recommendations_off;

-- name: get_preferences(org_id)$
SELECT recommendations_off FROM discovery_preferences WHERE org_id = :org_id;

-- name: set_preferences(org_id, off)!
INSERT INTO discovery_preferences VALUES (:org_id, :off)
ON CONFLICT (org_id) DO UPDATE SET recommendations_off = excluded.recommendations_off;

-- name: add_collection(id, org_id, title, description, curated, now)^
INSERT INTO collections (id, org_id, title, description, curated, created_at, updated_at)
VALUES (:id, :org_id, :title, :description, :curated, :now, :now) RETURNING *;

-- name: get_collection(id, org_id)^
SELECT * FROM collections WHERE id = :id AND (curated OR org_id = :org_id);

-- name: lock_collection(id, org_id, admin)^
-- One that the caller may change: a curated one is any administrator's.
SELECT * FROM collections WHERE id = :id AND (CASE WHEN curated THEN :admin::boolean ELSE org_id = :org_id END)
FOR UPDATE;

-- name: list_collections(org_id, curated, before, most)
SELECT * FROM collections
WHERE CASE WHEN :curated::boolean THEN curated ELSE org_id = :org_id AND NOT curated END AND id < :before
ORDER BY id DESC LIMIT :most;

-- name: update_collection(id, title, description, now)^
UPDATE collections SET title = :title, description = :description, revision = revision + 1, updated_at = :now
WHERE id = :id RETURNING *;

-- name: delete_collection(id)!
DELETE FROM collections WHERE id = :id;

-- name: count_collection(id)$
SELECT count(*) FROM collection_models WHERE collection_id = :id;

-- name: add_to_collection(id, model)!
INSERT INTO collection_models (collection_id, model) VALUES (:id, :model) ON CONFLICT DO NOTHING;

-- name: remove_from_collection(id, model)!
DELETE FROM collection_models WHERE collection_id = :id AND model = :model;

-- name: collection_models(id)
-- Those that are published.
SELECT l.*, q.display_name AS publisher_name, q.verified AS publisher_verified
FROM collection_models m JOIN listings l ON l.model = m.model
LEFT JOIN publisher_profiles q ON q.publisher = split_part(l.model, '/', 1)
WHERE m.collection_id = :id ORDER BY m.number;

-- name: add_favourite(org_id, model)!
INSERT INTO favourites (org_id, model) VALUES (:org_id, :model) ON CONFLICT DO NOTHING;

-- name: remove_favourite(org_id, model)!
DELETE FROM favourites WHERE org_id = :org_id AND model = :model;

-- name: list_favourites(org_id, before, most)
SELECT l.*, f.number, q.display_name AS publisher_name, q.verified AS publisher_verified
FROM favourites f JOIN listings l ON l.model = f.model
LEFT JOIN publisher_profiles q ON q.publisher = split_part(l.model, '/', 1)
WHERE f.org_id = :org_id AND f.number < :before ORDER BY f.number DESC LIMIT :most;

-- name: follow(org_id, publisher)!
INSERT INTO follows VALUES (:org_id, :publisher) ON CONFLICT DO NOTHING;

-- name: unfollow(org_id, publisher)!
DELETE FROM follows WHERE org_id = :org_id AND publisher = :publisher;

-- name: list_following(org_id, after, most)
SELECT publisher FROM follows WHERE org_id = :org_id AND publisher COLLATE "C" > :after
ORDER BY publisher COLLATE "C" LIMIT :most;

-- name: list_feed(org_id, called, at, version_id, kind, most)
-- What was published by whom they follow, and of their favourites; what ends of those and of the models that they call.
WITH followed AS (SELECT publisher FROM follows WHERE org_id = :org_id),
liked AS (SELECT model FROM favourites WHERE org_id = :org_id),
found AS (
    (SELECT model, version, version_id, 1::smallint AS kind, published_at AS at, NULL::timestamptz AS sunset_at,
        '' AS successor, '' AS reason
    FROM publications
    WHERE (publisher IN (TABLE followed) OR model IN (TABLE liked))
        AND (published_at, version_id, 1) < (:at::timestamptz, :version_id::text, :kind::integer)
    ORDER BY published_at DESC, version_id DESC LIMIT :most)
    UNION ALL
    (SELECT model, version, version_id, kind, at, sunset_at, successor, reason
    FROM endings
    WHERE (publisher IN (TABLE followed) OR model IN (TABLE liked) OR model = ANY(:called::text[]))
        AND (at, version_id, kind) < (:at::timestamptz, :version_id::text, :kind::integer)
    ORDER BY at DESC, version_id DESC, kind DESC LIMIT :most)
)
SELECT l.*, f.model AS about, f.version, f.version_id, f.kind, f.at, f.sunset_at, f.successor, f.reason,
    f.model = ANY(:called::text[]) AS called, q.display_name AS publisher_name, q.verified AS publisher_verified
FROM found f LEFT JOIN listings l ON l.model = f.model
LEFT JOIN publisher_profiles q ON q.publisher = split_part(l.model, '/', 1)
ORDER BY f.at DESC, f.version_id DESC, f.kind DESC LIMIT :most;

-- name: forget_lineage(model_id)!
-- What the model's own card said.
DELETE FROM lineage WHERE model_id = :model_id AND version = '';

-- name: add_lineage(model_id, version, kinds, names, bases)!
INSERT INTO lineage (model_id, version, kind, name, base_model_id)
SELECT :model_id, :version, k, n, nullif(b, '')
FROM unnest(:kinds::smallint[], :names::text[], :bases::text[]) AS t (k, n, b) ON CONFLICT DO NOTHING;

-- name: made_from(model_ids, org_id, everything, most)
-- Of what others may not see nothing is told but the name in the card. 6 and 7 are PUBLISHED and DEPRECATED.
SELECT l.*, m.publisher || '/' || m.name AS made, b.publisher || '/' || b.name AS base
FROM lineage l JOIN models m ON m.id = l.model_id
LEFT JOIN models b ON b.id = l.base_model_id AND (b.latest_version <> '' OR b.org_id = :org_id OR :everything)
WHERE l.model_id = ANY(:model_ids::text[]) AND (l.version = '' OR m.org_id = :org_id OR :everything OR EXISTS (
    SELECT FROM versions v WHERE v.model_id = l.model_id AND v.version = l.version AND v.state IN (6, 7)))
ORDER BY l.model_id, l.kind, l.name, l.version LIMIT :most;

-- name: made_of(model_ids, org_id, everything, most)
SELECT l.*, m.publisher || '/' || m.name AS made, b.publisher || '/' || b.name AS base
FROM lineage l JOIN models m ON m.id = l.model_id JOIN models b ON b.id = l.base_model_id
WHERE l.base_model_id = ANY(:model_ids::text[]) AND (m.latest_version <> '' OR m.org_id = :org_id OR :everything)
    AND (l.version = '' OR m.org_id = :org_id OR :everything OR EXISTS (
        SELECT FROM versions v WHERE v.model_id = l.model_id AND v.version = l.version AND v.state IN (6, 7)))
ORDER BY l.base_model_id, made, l.version LIMIT :most;

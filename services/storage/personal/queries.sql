-- name: export_uploads(org_ids)
SELECT to_jsonb(u)::text AS line FROM uploads u WHERE u.org_id = ANY(:org_ids::text[]) ORDER BY u.id;

-- name: export_artifacts(org_ids)
SELECT (to_jsonb(o) || jsonb_build_object('size_bytes', a.size_bytes, 'created_at', a.created_at))::text AS line
FROM artifact_owners o JOIN artifacts a ON a.digest = o.digest WHERE o.org_id = ANY(:org_ids::text[]) ORDER BY o.digest;

-- name: list_uploads(org_ids)
SELECT id FROM uploads WHERE org_id = ANY(:org_ids::text[]);

-- name: list_digests(org_ids)
SELECT DISTINCT digest FROM artifact_owners WHERE org_id = ANY(:org_ids::text[]);

-- name: lock_unowned(digest, org_ids)$
SELECT a.digest FROM artifacts a WHERE a.digest = :digest AND NOT EXISTS (
    SELECT FROM artifact_owners o WHERE o.digest = a.digest AND o.org_id <> ALL(:org_ids::text[])
) FOR UPDATE;

-- name: drop_artifact(digest)!
WITH owners AS (DELETE FROM artifact_owners WHERE digest = :digest)
DELETE FROM artifacts WHERE digest = :digest;

-- name: erase_owners(org_ids)!
DELETE FROM artifact_owners WHERE org_id = ANY(:org_ids::text[]);

-- name: erase_uploads(org_ids)!
DELETE FROM uploads WHERE org_id = ANY(:org_ids::text[]);

-- name: add_upload(id, org_id, filename, size_bytes, digest, complete, now, expires_at)^
INSERT INTO uploads (id, org_id, filename, size_bytes, digest, complete, created_at, expires_at)
VALUES (:id, :org_id, :filename, :size_bytes, :digest, :complete, :now, :expires_at) RETURNING *;

-- name: get_upload(id, org_id)^
SELECT * FROM uploads WHERE id = :id AND org_id = :org_id;

-- name: complete_upload(id)^
UPDATE uploads SET complete = true WHERE id = :id RETURNING *;

-- name: take_expired(now, most)
DELETE FROM uploads WHERE id IN (
    SELECT id FROM uploads WHERE expires_at < :now LIMIT :most FOR UPDATE SKIP LOCKED
) RETURNING id;

-- name: add_artifact(digest, size_bytes, now)!
INSERT INTO artifacts (digest, size_bytes, created_at) VALUES (:digest, :size_bytes, :now) ON CONFLICT DO NOTHING;

-- name: add_owner(digest, org_id, filename)!
INSERT INTO artifact_owners (digest, org_id, filename) VALUES (:digest, :org_id, :filename) ON CONFLICT DO NOTHING;

-- name: share_artifacts(digests, org_id)!
-- Whoever has uploaded one keeps it.
INSERT INTO artifact_owners (digest, org_id, filename)
SELECT DISTINCT ON (digest) digest, :org_id, filename FROM artifact_owners WHERE digest = ANY(:digests::text[])
ORDER BY digest, org_id
ON CONFLICT DO NOTHING;

-- name: get_artifact(digest, org_id)^
-- An empty organisation is any, or none: what services made has no owner.
SELECT a.digest, a.size_bytes, coalesce(o.filename, '') AS filename
FROM artifacts a LEFT JOIN artifact_owners o ON o.digest = a.digest
WHERE a.digest = :digest AND (:org_id::text = '' OR o.org_id = :org_id) LIMIT 1;

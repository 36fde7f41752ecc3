-- name: add_upload(id, org_id, filename, size_bytes, digest, metadata, complete, now, expires_at)^
INSERT INTO uploads (id, org_id, filename, size_bytes, digest, metadata, complete, created_at, expires_at)
VALUES (:id, :org_id, :filename, :size_bytes, :digest, :metadata, :complete, :now, :expires_at) RETURNING *;

-- name: list_uploads(org_id, digest, before, now, most)
SELECT * FROM uploads WHERE org_id = :org_id AND expires_at >= :now AND (:digest::text = '' OR digest = :digest)
    AND (:before::text IS NULL OR id < :before)
ORDER BY id DESC LIMIT :most;

-- name: keep_upload(id, expires_at)^
UPDATE uploads SET expires_at = :expires_at WHERE id = :id RETURNING *;

-- name: delete_upload(id, org_id)$
DELETE FROM uploads WHERE id = :id AND org_id = :org_id RETURNING id;

-- name: get_upload(id, org_id)^
SELECT * FROM uploads WHERE id = :id AND org_id = :org_id;

-- name: complete_upload(id, digest)^
UPDATE uploads SET complete = true, digest = :digest WHERE id = :id RETURNING *;

-- name: take_expired(now, most)
DELETE FROM uploads WHERE id IN (
    SELECT id FROM uploads WHERE expires_at < :now LIMIT :most FOR UPDATE SKIP LOCKED
) RETURNING id;

-- name: add_artifact(digest, size_bytes, now)!
-- The row stays locked until the transaction ends, so that nobody removes the bytes meanwhile.
INSERT INTO artifacts (digest, size_bytes, created_at, used_at) VALUES (:digest, :size_bytes, :now, :now)
ON CONFLICT (digest) DO UPDATE SET size_bytes = excluded.size_bytes, used_at = :now, removing = false;

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
WHERE a.digest = :digest AND NOT a.removing AND (:org_id::text = '' OR o.org_id = :org_id) LIMIT 1;

-- name: use_artifact(digest, now)$
UPDATE artifacts SET used_at = :now WHERE digest = :digest AND NOT removing RETURNING digest;

-- name: unused_artifacts(before, most)
SELECT digest FROM artifacts WHERE used_at < :before AND NOT removing ORDER BY used_at LIMIT :most;

-- name: use_artifacts(digests, now)!
UPDATE artifacts SET used_at = :now WHERE digest = ANY(:digests) AND NOT removing;

-- name: condemn_artifacts(digests, before)!
-- Unless somebody wants one since.
UPDATE artifacts SET removing = true WHERE digest = ANY(:digests) AND used_at < :before;

-- name: condemn_stray(digest, now)!
-- Bytes that no row is about.
INSERT INTO artifacts (digest, size_bytes, created_at, used_at, removing) VALUES (:digest, 0, :now, :now, true)
ON CONFLICT DO NOTHING;

-- name: known_artifacts(digests)
SELECT digest FROM artifacts WHERE digest = ANY(:digests);

-- name: next_condemned()$
SELECT digest FROM artifacts WHERE removing ORDER BY used_at LIMIT 1 FOR UPDATE SKIP LOCKED;

-- name: drop_owners(digest)!
DELETE FROM artifact_owners WHERE digest = :digest;

-- name: drop_artifact(digest)!
DELETE FROM artifacts WHERE digest = :digest;

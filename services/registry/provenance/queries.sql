-- name: add_publisher_key(org_id, fingerprint, publisher, name, public_key, now)^
-- Nothing: the organisation has it already.
INSERT INTO publisher_keys (org_id, fingerprint, publisher, name, public_key, created_at)
VALUES (:org_id, :fingerprint, :publisher, :name, :public_key, :now) ON CONFLICT DO NOTHING RETURNING *;

-- name: count_publisher_keys(org_id)$
SELECT count(*) FROM publisher_keys WHERE org_id = :org_id;

-- name: list_publisher_keys(publisher, after, most)
SELECT * FROM publisher_keys WHERE publisher = :publisher AND fingerprint > :after ORDER BY fingerprint LIMIT :most;

-- name: trusted_keys(org_id)
-- Kept from being revoked until the transaction ends.
SELECT * FROM publisher_keys WHERE org_id = :org_id AND revoked_at IS NULL FOR SHARE;

-- name: revoke_publisher_key(org_id, fingerprint, now)^
UPDATE publisher_keys SET revoked_at = coalesce(revoked_at, :now)
WHERE org_id = :org_id AND fingerprint = :fingerprint RETURNING *;

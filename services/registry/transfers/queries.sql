-- name: end_transfers(model_id, now)!
UPDATE model_transfers SET ended_at = :now WHERE model_id = :model_id AND ended_at IS NULL;

-- name: add_transfer(id, model_id, from_org_id, to_org_id, organisation, user_id, now, expires_at)^
INSERT INTO model_transfers (id, model_id, from_org_id, to_org_id, organisation, user_id, created_at, expires_at)
VALUES (:id, :model_id, :from_org_id, :to_org_id, :organisation, :user_id, :now, :expires_at) RETURNING *;

-- name: list_transfers(org_id, before, now, most)
SELECT t.*, m.publisher, m.name FROM model_transfers t JOIN models m ON m.id = t.model_id
WHERE (t.from_org_id = :org_id OR t.to_org_id = :org_id) AND t.ended_at IS NULL AND t.expires_at > :now
    AND (:before::text = '' OR t.id < :before)
ORDER BY t.id DESC LIMIT :most;

-- name: get_transfer(transfer_id, now)^
SELECT t.*, m.publisher, m.name FROM model_transfers t JOIN models m ON m.id = t.model_id
WHERE t.id = :transfer_id AND t.ended_at IS NULL AND t.expires_at > :now;

-- name: end_transfer(transfer_id, now)$
-- Nothing: it was ended meanwhile.
UPDATE model_transfers SET ended_at = :now WHERE id = :transfer_id AND ended_at IS NULL RETURNING id;

-- name: digests_of(model_id)
-- Of versions, what is served of them, and the files beside them.
SELECT digest FROM versions WHERE model_id = :model_id
UNION SELECT served_digest FROM versions WHERE model_id = :model_id AND served_digest <> ''
UNION SELECT f.digest FROM version_files f JOIN versions v ON v.id = f.version_id WHERE v.model_id = :model_id
ORDER BY digest;

-- name: move_model(id, org_id, publisher, name, skeleton)!
UPDATE models SET org_id = :org_id, publisher = :publisher, name = :name, skeleton = :skeleton WHERE id = :id;

-- name: add_address(publisher, name, model_id, now)!
-- One that left it long ago may have a row there yet.
INSERT INTO model_addresses (publisher, name, model_id, left_at) VALUES (:publisher, :name, :model_id, :now)
ON CONFLICT (publisher, name) DO UPDATE SET model_id = excluded.model_id, left_at = excluded.left_at;

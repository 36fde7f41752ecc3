-- name: newest_data_key(owner_id)^
SELECT version, wrapped FROM data_keys WHERE owner_id = :owner_id ORDER BY version DESC LIMIT 1;

-- name: get_data_key(owner_id, version)^
SELECT version, wrapped FROM data_keys WHERE owner_id = :owner_id AND version = :version;

-- name: add_data_key(owner_id, version, wrapped, under, now)$
-- No value: another process made it meanwhile.
INSERT INTO data_keys (owner_id, version, wrapped, under, created_at)
VALUES (:owner_id, :version, :wrapped, :under, :now)
ON CONFLICT DO NOTHING
RETURNING version;

-- name: shred_data_keys(owner_id)!
DELETE FROM data_keys WHERE owner_id = :owner_id;

-- name: data_keys_to_rewrap(under, most)
SELECT owner_id, version, wrapped FROM data_keys WHERE under <> :under
ORDER BY owner_id, version LIMIT :most FOR UPDATE SKIP LOCKED;

-- name: rewrap_data_key(owner_id, version, wrapped, under)!
UPDATE data_keys SET wrapped = :wrapped, under = :under WHERE owner_id = :owner_id AND version = :version;

-- name: count_data_keys()
SELECT under, count(*) AS keys FROM data_keys GROUP BY under ORDER BY under;

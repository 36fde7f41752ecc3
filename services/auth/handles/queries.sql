-- name: add_handle_key(sealed)!
INSERT INTO handle_keys (sealed) VALUES (:sealed) ON CONFLICT DO NOTHING;

-- name: get_handle_key()$
SELECT sealed FROM handle_keys;

-- name: retire_handle(handle_hash, now)!
INSERT INTO retired_handles (handle_hash, retired_at, keyed) VALUES (:handle_hash, :now, true)
ON CONFLICT (handle_hash) DO UPDATE SET retired_at = excluded.retired_at;

-- name: is_retired(handle_hashes, since)$
SELECT EXISTS (SELECT FROM retired_handles WHERE handle_hash = ANY(:handle_hashes::bytea[]) AND retired_at > :since);

-- name: forget_retired(before)!
DELETE FROM retired_handles WHERE retired_at <= :before;

-- name: list_unkeyed(most)
SELECT handle_hash FROM retired_handles WHERE NOT keyed LIMIT :most FOR UPDATE;

-- name: key_retired(before, handle_hash)!
UPDATE retired_handles SET handle_hash = :handle_hash, keyed = true WHERE handle_hash = :before;

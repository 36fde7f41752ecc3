-- name: add_entry(id, user_id, org_id, key_id, action, resource_type, resource_id, request_id, metadata, ip_address, user_agent, created_at)^
-- No row: it is there already.
INSERT INTO audit_logs (id, user_id, org_id, key_id, action, resource_type, resource_id, request_id, metadata, ip_address,
    user_agent, created_at)
VALUES (:id, :user_id, :org_id, :key_id, :action, :resource_type, :resource_id, :request_id, :metadata::text::jsonb,
    :ip_address::text::inet, :user_agent, :created_at)
ON CONFLICT DO NOTHING RETURNING *;

-- name: is_closed(user_id)$
SELECT EXISTS (SELECT FROM users WHERE id = :user_id AND deleted_at IS NOT NULL);

-- name: strip_entry(id)!
UPDATE audit_logs SET salt = NULL WHERE id = :id;

-- name: lock_chain(chain)^
-- Its end, which stays until the transaction's: also where another one had it locked.
INSERT INTO audit_chains (chain) VALUES (:chain) ON CONFLICT (chain) DO UPDATE SET chain = excluded.chain
RETURNING sequence, hash;

-- name: link_entry(id, chain, sequence, salt, details_hash, previous_hash, hash)!
UPDATE audit_logs SET chain = :chain, sequence = :sequence, salt = :salt, details_hash = :details_hash,
    previous_hash = :previous_hash, hash = :hash
WHERE id = :id;

-- name: move_chain(chain, sequence, hash)!
UPDATE audit_chains SET sequence = :sequence, hash = :hash WHERE chain = :chain;

-- name: loose_entries(most)
-- Written before there were chains, or by a process that does not know them.
SELECT * FROM audit_logs WHERE chain IS NULL ORDER BY created_at, id LIMIT :most FOR UPDATE SKIP LOCKED;

-- name: newest_entries(chain, user_id, key_id, action, resource_type, resource_id, denied, start, until, beyond, most)
SELECT * FROM audit_logs
WHERE chain = :chain AND (:beyond::bigint = 0 OR sequence < :beyond) AND created_at >= :start AND created_at < :until
    AND (:user_id::text = '' OR user_id = :user_id) AND (:key_id::text = '' OR key_id = :key_id)
    AND (:action::text = '' OR action = :action OR right(action, length(:action) + 1) = '/' || :action)
    AND (:resource_type::text = '' OR resource_type = :resource_type)
    AND (:resource_id::text = '' OR resource_id = :resource_id) AND (NOT :denied OR metadata ? 'denied')
ORDER BY sequence DESC LIMIT :most;

-- name: oldest_entries(chain, user_id, key_id, action, resource_type, resource_id, denied, start, until, beyond, most)
SELECT * FROM audit_logs
WHERE chain = :chain AND sequence > :beyond AND created_at >= :start AND created_at < :until
    AND (:user_id::text = '' OR user_id = :user_id) AND (:key_id::text = '' OR key_id = :key_id)
    AND (:action::text = '' OR action = :action OR right(action, length(:action) + 1) = '/' || :action)
    AND (:resource_type::text = '' OR resource_type = :resource_type)
    AND (:resource_id::text = '' OR resource_id = :resource_id) AND (NOT :denied OR metadata ? 'denied')
ORDER BY sequence LIMIT :most;

-- name: platform_entries(chain, user_id, key_id, action, resource_type, resource_id, denied, start, until, before, most)
SELECT * FROM audit_logs
WHERE chain IS NOT NULL AND (:chain::text = '' OR chain = :chain) AND (:before::text = '' OR id < :before)
    AND created_at >= :start AND created_at < :until
    AND (:user_id::text = '' OR user_id = :user_id) AND (:key_id::text = '' OR key_id = :key_id)
    AND (:action::text = '' OR action = :action OR right(action, length(:action) + 1) = '/' || :action)
    AND (:resource_type::text = '' OR resource_type = :resource_type)
    AND (:resource_id::text = '' OR resource_id = :resource_id) AND (NOT :denied OR metadata ? 'denied')
ORDER BY id DESC LIMIT :most;

-- name: unsigned_chains()
SELECT chain FROM audit_chains WHERE sequence > signed ORDER BY chain;

-- name: entries_from(chain, sequence, most)
SELECT * FROM audit_logs WHERE chain = :chain AND sequence >= :sequence ORDER BY sequence LIMIT :most;

-- name: mark_signed(chain, sequence)!
UPDATE audit_chains SET signed = greatest(signed, :sequence) WHERE chain = :chain;

-- name: erase_details(before, most)!
UPDATE audit_logs SET ip_address = NULL, user_agent = '', metadata = '{}', salt = NULL
WHERE id IN (SELECT id FROM audit_logs WHERE salt IS NOT NULL AND created_at < :before LIMIT :most);

-- name: old_entries(before)
-- By chain the last entry that is old.
SELECT chain, max(sequence) AS sequence FROM audit_logs WHERE chain IS NOT NULL AND created_at < :before GROUP BY chain;

-- name: drop_entries(chain, sequence)!
DELETE FROM audit_logs WHERE chain = :chain AND sequence <= :sequence;

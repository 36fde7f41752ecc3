-- name: put_connection(org_id, issuer, client_id, sealed_secret, default_role, required, now)^
INSERT INTO sso_connections (org_id, issuer, client_id, sealed_secret, default_role, required, updated_at)
VALUES (:org_id, :issuer, :client_id, :sealed_secret, :default_role, :required, :now)
ON CONFLICT (org_id) DO UPDATE SET issuer = excluded.issuer, client_id = excluded.client_id,
    sealed_secret = excluded.sealed_secret, default_role = excluded.default_role, required = excluded.required,
    revision = sso_connections.revision + 1, updated_at = excluded.updated_at
RETURNING *;

-- name: get_connection(org_id)^
SELECT c.*, o.handle FROM sso_connections c JOIN organisations o ON o.id = c.org_id WHERE c.org_id = :org_id;

-- name: get_connection_of(domain)^
SELECT c.*, o.handle FROM sso_connections c JOIN organisations o ON o.id = c.org_id
JOIN sso_domains d ON d.org_id = c.org_id AND d.verified_at IS NOT NULL
WHERE d.domain = :domain;

-- name: delete_connection(org_id)!
DELETE FROM sso_connections WHERE org_id = :org_id;

-- name: delete_identities(org_id)!
DELETE FROM identities WHERE provider = :org_id;

-- name: only_way_of(org_id, domain, most)
-- People who sign in by the connection and in no other way; of a domain where that is given.
SELECT u.username FROM users u JOIN identities i ON i.user_id = u.id AND i.provider = :org_id
WHERE u.deleted_at IS NULL AND u.password_hash = '' AND (:domain::text = '' OR split_part(lower(i.email), '@', 2) = :domain)
    AND NOT EXISTS (SELECT FROM passkeys p WHERE p.user_id = u.id)
    AND NOT EXISTS (SELECT FROM identities e WHERE e.user_id = u.id AND e.id <> i.id)
ORDER BY u.username LIMIT :most;

-- name: count_domains(org_id)$
SELECT count(*) FROM sso_domains WHERE org_id = :org_id;

-- name: add_domain(org_id, domain, token, now)!
-- Who has begun goes on with the record of before.
INSERT INTO sso_domains (org_id, domain, token, created_at) VALUES (:org_id, :domain, :token, :now) ON CONFLICT DO NOTHING;

-- name: get_domain(org_id, domain)^
SELECT * FROM sso_domains WHERE org_id = :org_id AND domain = :domain;

-- name: list_domains(org_id, after, most)
SELECT * FROM sso_domains WHERE org_id = :org_id AND domain > :after ORDER BY domain LIMIT :most;

-- name: verify_domain(org_id, domain, now)^
UPDATE sso_domains SET verified_at = coalesce(verified_at, :now) WHERE org_id = :org_id AND domain = :domain RETURNING *;

-- name: remove_domain(org_id, domain)!
DELETE FROM sso_domains WHERE org_id = :org_id AND domain = :domain;

-- name: required_of(user_id)^
-- The connection that somebody must sign in by. Owners may always sign in otherwise; so may whose address nobody verified
-- and who is not linked yet, or they could not link.
SELECT c.org_id, d.domain FROM users u
JOIN sso_domains d ON d.domain = split_part(lower(u.email), '@', 2) AND d.verified_at IS NOT NULL
JOIN sso_connections c ON c.org_id = d.org_id AND c.required
WHERE u.id = :user_id
    AND NOT EXISTS (SELECT FROM members m WHERE m.org_id = c.org_id AND m.user_id = u.id AND m.role = 'owner')
    AND (u.is_verified OR EXISTS (SELECT FROM identities i WHERE i.user_id = u.id AND i.provider = c.org_id));

-- name: required_for(domain)$
SELECT c.org_id FROM sso_domains d JOIN sso_connections c ON c.org_id = d.org_id AND c.required
WHERE d.domain = :domain AND d.verified_at IS NOT NULL;

-- name: lock_person(user_id)^
SELECT u.id, u.email, u.username, u.display_name, u.role, o.id AS org_id, o.handle FROM users u
JOIN organisations o ON o.personal_of = u.id
WHERE u.id = :user_id AND u.deleted_at IS NULL FOR UPDATE OF u;

-- name: memberships(user_id)
-- With how many members there are beside, and how many owners. Organisations are locked in one order.
SELECT o.id AS org_id, o.handle, o.personal_of IS NOT NULL AS personal, m.role,
    (SELECT count(*) FROM members x JOIN users u ON u.id = x.user_id
        WHERE x.org_id = o.id AND x.user_id <> :user_id AND u.deleted_at IS NULL) AS others,
    (SELECT count(*) FROM members x JOIN users u ON u.id = x.user_id
        WHERE x.org_id = o.id AND x.user_id <> :user_id AND x.role = 'owner' AND u.deleted_at IS NULL) AS other_owners
FROM organisations o JOIN members m ON m.org_id = o.id AND m.user_id = :user_id ORDER BY o.id FOR UPDATE OF o;

-- name: count_other_admins(user_id, role)$
SELECT count(*) FROM users WHERE role = :role AND id <> :user_id AND deleted_at IS NULL;

-- name: places(user_id)
-- Where from and with what they came.
SELECT host(ip_address) AS address, user_agent FROM sessions WHERE user_id = :user_id AND ip_address IS NOT NULL
UNION SELECT host(ip_address), user_agent FROM audit_logs WHERE user_id = :user_id AND ip_address IS NOT NULL LIMIT 1000;

-- name: close_account(user_id, now)!
UPDATE users SET deleted_at = :now WHERE id = :user_id;

-- name: end_keys(user_id, org_ids)!
UPDATE api_keys SET is_active = false WHERE user_id = :user_id OR org_id = ANY(:org_ids::text[]);

-- name: end_service_accounts(org_ids, now)!
UPDATE service_accounts SET deleted_at = :now WHERE org_id = ANY(:org_ids::text[]) AND deleted_at IS NULL;

-- name: end_clients(org_ids, now)!
UPDATE oauth_clients SET revoked_at = :now WHERE org_id = ANY(:org_ids::text[]) AND revoked_at IS NULL;

-- name: add_request(id, kind, user_id, request, sealed_marks, now, expires_at)!
INSERT INTO person_requests (id, kind, user_id, request, sealed_marks, created_at, expires_at)
VALUES (:id, :kind, :user_id, :request, :sealed_marks, :now, :expires_at);

-- name: get_request(id, kind)^
SELECT * FROM person_requests WHERE id = :id AND kind = :kind;

-- name: list_requests(user_id, kind)
SELECT * FROM person_requests WHERE user_id = :user_id AND kind = :kind ORDER BY id DESC;

-- name: add_part(request_id, service, done)!
INSERT INTO person_parts (request_id, service, done)
SELECT id, :service, :done FROM person_requests WHERE id = :request_id ON CONFLICT DO NOTHING;

-- name: list_parts(request_id)
SELECT service, done FROM person_parts WHERE request_id = :request_id ORDER BY service;

-- name: list_complete(services)
-- Not finished yet, though every service has done its part.
SELECT r.* FROM person_requests r WHERE r.finished_at IS NULL AND (
    SELECT count(*) FROM person_parts p WHERE p.request_id = r.id AND p.service = ANY(:services::text[])
) = cardinality(:services::text[]) ORDER BY r.id LIMIT 10;

-- name: finish_request(id, now)!
UPDATE person_requests SET finished_at = :now, sealed_marks = NULL, request = NULL WHERE id = :id;

-- name: list_expired(now)
SELECT id FROM person_requests WHERE expires_at <= :now ORDER BY expires_at LIMIT 10;

-- name: delete_request(id)!
DELETE FROM person_requests WHERE id = :id;

-- name: erase_traces(after, most, user_id, org_ids, needles, addresses, agents)^
-- Details of entries of a page that are of a person, or name them, or are of nobody, from where they were; and of what
-- others did that is in the log of an organisation of theirs too.
WITH page AS (SELECT id FROM audit_logs WHERE id > :after ORDER BY id LIMIT :most),
erased AS (
    UPDATE audit_logs a SET ip_address = NULL, user_agent = '', metadata = '{}', salt = NULL FROM page p
    WHERE a.id = p.id AND a.salt IS NOT NULL AND (
        a.user_id = :user_id OR a.resource_id = :user_id OR a.chain = ANY(:org_ids::text[])
        OR a.request_id IN (SELECT request_id FROM audit_logs WHERE chain = ANY(:org_ids::text[]) AND request_id <> '')
        OR a.user_id IS NULL AND (host(a.ip_address), a.user_agent) IN (
            SELECT * FROM unnest(:addresses::text[], :agents::text[]))
        OR EXISTS (SELECT FROM unnest(:needles::text[]) n WHERE strpos(lower(a.metadata::text), n) > 0)
    ) RETURNING a.id
)
SELECT (SELECT max(id) FROM page) AS last, (SELECT count(*) FROM erased) AS erased;

-- name: requests(org_ids)
-- Those in the logs of organisations.
SELECT DISTINCT request_id FROM audit_logs WHERE chain = ANY(:org_ids::text[]) AND request_id <> '';

-- name: export_profile(user_id)
SELECT (to_jsonb(u) - ARRAY['password_hash'] || jsonb_build_object('has_password', password_hash <> ''))::text AS line
FROM users u WHERE id = :user_id;

-- name: export_sessions(user_id)
SELECT to_jsonb(s)::text AS line FROM sessions s WHERE user_id = :user_id ORDER BY id;

-- name: export_identities(user_id)
SELECT to_jsonb(i)::text AS line FROM identities i WHERE user_id = :user_id ORDER BY id;

-- name: export_passkeys(user_id)
SELECT (to_jsonb(p) - ARRAY['public_key', 'credential_id'])::text AS line FROM passkeys p WHERE user_id = :user_id
ORDER BY id;

-- name: export_second_factor(user_id)
SELECT (to_jsonb(f) - ARRAY['sealed_secret', 'last_step'])::text AS line FROM totp_factors f WHERE user_id = :user_id;

-- name: export_api_keys(user_id, org_ids)
SELECT (to_jsonb(k) - ARRAY['key_hash', 'previous_hash'])::text AS line FROM api_keys k
WHERE user_id = :user_id OR org_id = ANY(:org_ids::text[]) ORDER BY id;

-- name: export_signing_keys(user_id, org_ids)
SELECT (to_jsonb(s) - ARRAY['sealed_secret', 'public_key'])::text AS line
FROM signing_keys s JOIN api_keys k ON k.id = s.key_id
WHERE k.user_id = :user_id OR k.org_id = ANY(:org_ids::text[]) ORDER BY s.id;

-- name: export_roles(org_ids)
SELECT to_jsonb(r)::text AS line FROM roles r WHERE org_id = ANY(:org_ids::text[]) ORDER BY org_id, name;

-- name: export_teams(org_ids)
SELECT to_jsonb(t)::text AS line FROM teams t WHERE org_id = ANY(:org_ids::text[]) ORDER BY id;

-- name: export_team_memberships(user_id)
-- In organisations of others too.
SELECT (to_jsonb(m) || jsonb_build_object('team', t.name))::text AS line
FROM team_members m JOIN teams t ON t.id = m.team_id WHERE m.user_id = :user_id ORDER BY m.team_id;

-- name: export_sso_connections(org_ids)
SELECT (to_jsonb(c) - ARRAY['sealed_secret'])::text AS line FROM sso_connections c WHERE org_id = ANY(:org_ids::text[])
ORDER BY org_id;

-- name: export_sso_domains(org_ids)
SELECT to_jsonb(d)::text AS line FROM sso_domains d WHERE org_id = ANY(:org_ids::text[]) ORDER BY org_id, domain;

-- name: export_organisations(user_id)
SELECT (to_jsonb(o) || jsonb_build_object('role', m.role, 'joined_at', m.created_at))::text AS line
FROM members m JOIN organisations o ON o.id = m.org_id WHERE m.user_id = :user_id ORDER BY o.id;

-- name: export_invitations(user_id, org_ids)
SELECT (to_jsonb(i) - ARRAY['code_hash'])::text AS line FROM invitations i
WHERE org_id = ANY(:org_ids::text[]) OR accepted_by = :user_id OR invited_by = :user_id
    OR lower(email) = (SELECT lower(email) FROM users WHERE id = :user_id) ORDER BY id;

-- name: export_service_accounts(org_ids)
SELECT to_jsonb(s)::text AS line FROM service_accounts s WHERE org_id = ANY(:org_ids::text[]) ORDER BY id;

-- name: export_oauth_clients(org_ids)
SELECT (to_jsonb(c) - ARRAY['secret_hash'])::text AS line FROM oauth_clients c WHERE org_id = ANY(:org_ids::text[])
ORDER BY id;

-- name: export_audit_entries(user_id)
SELECT (to_jsonb(a) - ARRAY['salt', 'details_hash', 'previous_hash', 'hash'])::text AS line FROM audit_logs a
WHERE user_id = :user_id ORDER BY id;

-- name: export_consents(user_id)
SELECT to_jsonb(c)::text AS line FROM consents c WHERE user_id = :user_id ORDER BY id;

-- name: add_consent(id, user_id, kind, version, granted, now)!
INSERT INTO consents (id, user_id, kind, version, granted, recorded_at)
VALUES (:id, :user_id, :kind, :version, :granted, :now);

-- name: list_consents(user_id)
-- The newest of each kind.
SELECT DISTINCT ON (kind) kind, version, granted, recorded_at FROM consents WHERE user_id = :user_id
ORDER BY kind, id DESC;

-- name: erase_consents(user_id)!
DELETE FROM consents WHERE user_id = :user_id;

-- name: erase_failures(user_id)!
DELETE FROM sign_in_failures f USING users u
WHERE u.id = :user_id AND f.subject IN ('device:' || u.id,
    'account:' || encode(sha256(convert_to(lower(u.email), 'UTF8')), 'hex'));

-- name: erase_failures_of_places(user_id)!
DELETE FROM sign_in_failures WHERE subject IN (
    SELECT 'address:' || host(ip_address) FROM sessions WHERE user_id = :user_id AND ip_address IS NOT NULL
    UNION SELECT 'address:' || host(ip_address) FROM audit_logs WHERE user_id = :user_id AND ip_address IS NOT NULL
);

-- name: erase_invitations(user_id, org_ids)!
DELETE FROM invitations WHERE org_id = ANY(:org_ids::text[]) OR accepted_by = :user_id
    OR lower(email) = (SELECT lower(email) FROM users WHERE id = :user_id);

-- name: erase_identities(user_id)!
DELETE FROM identities WHERE user_id = :user_id;

-- name: erase_identity_attempts(user_id)!
DELETE FROM identity_attempts WHERE link_user_id = :user_id;

-- name: erase_passkeys(user_id)!
DELETE FROM passkeys WHERE user_id = :user_id;

-- name: erase_passkey_challenges(user_id)!
DELETE FROM passkey_challenges WHERE user_id = :user_id;

-- name: erase_totp(user_id)!
DELETE FROM totp_factors WHERE user_id = :user_id;

-- name: erase_device_codes(user_id)!
DELETE FROM device_codes WHERE user_id = :user_id;

-- name: erase_mail_codes(user_id)!
DELETE FROM mail_codes WHERE user_id = :user_id;

-- name: erase_refresh_tokens(user_id)!
DELETE FROM refresh_tokens WHERE user_id = :user_id;

-- name: erase_sessions(user_id)!
DELETE FROM sessions WHERE user_id = :user_id;

-- name: erase_signing_keys(user_id, org_ids)!
DELETE FROM signing_keys s USING api_keys k
WHERE k.id = s.key_id AND (k.user_id = :user_id OR k.org_id = ANY(:org_ids::text[]));

-- name: erase_api_keys(user_id, org_ids)!
DELETE FROM api_keys WHERE user_id = :user_id OR org_id = ANY(:org_ids::text[]);

-- name: erase_clients(org_ids)!
DELETE FROM oauth_clients WHERE org_id = ANY(:org_ids::text[]);

-- name: erase_service_accounts(org_ids)!
DELETE FROM service_accounts WHERE org_id = ANY(:org_ids::text[]);

-- name: erase_sso_identities(org_ids)!
-- Of people who once came in by a provider that is gone.
DELETE FROM identities WHERE provider = ANY(:org_ids::text[]);

-- name: erase_sso_domains(org_ids)!
DELETE FROM sso_domains WHERE org_id = ANY(:org_ids::text[]);

-- name: erase_sso_connections(org_ids)!
DELETE FROM sso_connections WHERE org_id = ANY(:org_ids::text[]);

-- name: erase_teams(org_ids)!
DELETE FROM teams WHERE org_id = ANY(:org_ids::text[]);

-- name: erase_team_memberships(user_id)!
DELETE FROM team_members WHERE user_id = :user_id;

-- name: erase_roles(org_ids)!
DELETE FROM roles WHERE org_id = ANY(:org_ids::text[]);

-- name: erase_members(user_id, org_ids)!
DELETE FROM members WHERE user_id = :user_id OR org_id = ANY(:org_ids::text[]);

-- name: erase_organisations(org_ids, pseudonyms)!
-- Their rows stay, for the ids of the books to be of something.
UPDATE organisations o SET handle = t.new, skeleton = NULL, display_name = '', call_limit = NULL
FROM unnest(:org_ids::text[], :pseudonyms::text[]) AS t (org_id, new) WHERE o.id = t.org_id;

-- name: erase_user(user_id)!
-- No address, name or password of anybody's.
UPDATE users SET email = id || '@deleted.invalid', username = 'deleted-' || substr(id, 5), display_name = '',
    password_hash = '', is_verified = false
WHERE id = :user_id;

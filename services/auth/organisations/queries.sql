-- name: add_organisation(id, handle, skeleton, display_name, now)!
INSERT INTO organisations (id, handle, skeleton, display_name, created_at)
VALUES (:id, :handle, :skeleton, :display_name, :now);

-- name: count_owned(user_id)$
SELECT count(*) FROM members m JOIN organisations o ON o.id = m.org_id
WHERE m.user_id = :user_id AND m.role = 'owner' AND o.personal_of IS NULL;

-- name: lock_user(user_id)$
SELECT id FROM users WHERE id = :user_id AND deleted_at IS NULL FOR UPDATE;

-- name: lock_organisation(org_id)^
-- Memberships and roles change one at a time.
SELECT * FROM organisations WHERE id = :org_id FOR UPDATE;

-- name: list_organisations(user_id, only, after, most)
SELECT o.*, m.role AS member_role FROM organisations o JOIN members m ON m.org_id = o.id
WHERE m.user_id = :user_id AND (:only::text = '' OR o.id = :only) AND o.handle > :after
ORDER BY o.handle LIMIT :most;

-- name: get_organisation(org_id, user_id)^
SELECT o.*, m.role AS member_role FROM organisations o LEFT JOIN members m ON m.org_id = o.id AND m.user_id = :user_id
WHERE o.id = :org_id;

-- name: update_organisation(org_id, display_name, revision)$
-- Nothing: the revision is no longer the current one. A revision of 0 is any.
UPDATE organisations SET display_name = :display_name, revision = revision + 1
WHERE id = :org_id AND (:revision::bigint = 0 OR revision = :revision) RETURNING id;

-- name: add_member(org_id, user_id, role, now)$
-- Nothing: they are in it.
INSERT INTO members (org_id, user_id, role, created_at) VALUES (:org_id, :user_id, :role, :now)
ON CONFLICT DO NOTHING RETURNING user_id;

-- name: list_members(org_id, after, most)
SELECT m.user_id, m.role, m.created_at, u.username, u.email, u.display_name
FROM members m JOIN users u ON u.id = m.user_id
WHERE m.org_id = :org_id AND u.deleted_at IS NULL AND m.user_id > :after
ORDER BY m.user_id LIMIT :most;

-- name: get_member(org_id, user_id)^
SELECT m.user_id, m.role, m.created_at, u.username, u.email, u.display_name, m.role AS member_role, r.scopes AS role_scopes,
    team_roles(m.org_id, m.user_id) AS team_roles
FROM members m JOIN users u ON u.id = m.user_id LEFT JOIN roles r ON r.org_id = m.org_id AND r.name = m.role
WHERE m.org_id = :org_id AND m.user_id = :user_id AND u.deleted_at IS NULL;

-- name: find_member(org_id, email)^
SELECT m.user_id FROM members m JOIN users u ON u.id = m.user_id
WHERE m.org_id = :org_id AND lower(u.email) = lower(:email) AND u.deleted_at IS NULL;

-- name: count_owners(org_id)$
SELECT count(*) FROM members m JOIN users u ON u.id = m.user_id
WHERE m.org_id = :org_id AND m.role = 'owner' AND u.deleted_at IS NULL;

-- name: set_member_role(org_id, user_id, role)!
UPDATE members SET role = :role WHERE org_id = :org_id AND user_id = :user_id;

-- name: remove_member(org_id, user_id)!
DELETE FROM members WHERE org_id = :org_id AND user_id = :user_id;

-- name: end_keys_of_member(org_id, user_id)!
UPDATE api_keys SET is_active = false WHERE org_id = :org_id AND user_id = :user_id AND is_active;

-- name: get_role(org_id, name)$
SELECT scopes FROM roles WHERE org_id = :org_id AND name = :name;

-- name: list_roles(org_id, after, most)
SELECT name, scopes FROM roles WHERE org_id = :org_id AND name > :after ORDER BY name LIMIT :most;

-- name: count_roles(org_id)$
SELECT count(*) FROM roles WHERE org_id = :org_id;

-- name: put_role(org_id, name, scopes)!
INSERT INTO roles (org_id, name, scopes) VALUES (:org_id, :name, :scopes::text::jsonb)
ON CONFLICT (org_id, name) DO UPDATE SET scopes = excluded.scopes;

-- name: role_in_use(org_id, name, now)$
SELECT EXISTS (SELECT FROM members WHERE org_id = :org_id AND role = :name)
    OR EXISTS (SELECT FROM sso_connections WHERE org_id = :org_id AND default_role = :name)
    OR EXISTS (SELECT FROM teams WHERE org_id = :org_id AND role = :name)
    OR EXISTS (SELECT FROM service_accounts WHERE org_id = :org_id AND role = :name AND deleted_at IS NULL)
    OR EXISTS (SELECT FROM invitations WHERE org_id = :org_id AND role = :name AND accepted_at IS NULL
        AND revoked_at IS NULL AND expires_at > :now);

-- name: delete_role(org_id, name)$
DELETE FROM roles WHERE org_id = :org_id AND name = :name RETURNING scopes;

-- name: end_invitations_of(org_id, email, now)!
UPDATE invitations SET revoked_at = :now
WHERE org_id = :org_id AND lower(email) = lower(:email) AND accepted_at IS NULL AND revoked_at IS NULL;

-- name: count_invitations(org_id, now)$
SELECT count(*) FROM invitations
WHERE org_id = :org_id AND accepted_at IS NULL AND revoked_at IS NULL AND expires_at > :now;

-- name: add_invitation(id, org_id, email, role, code_hash, invited_by, now, expires_at)^
INSERT INTO invitations (id, org_id, email, role, code_hash, invited_by, created_at, expires_at)
VALUES (:id, :org_id, :email, :role, :code_hash, :invited_by, :now, :expires_at) RETURNING *;

-- name: invited_since(since, org_id, email)
SELECT created_at FROM invitations
WHERE created_at > :since AND (:org_id::text = '' OR org_id = :org_id)
    AND (:email::text = '' OR lower(email) = lower(:email))
ORDER BY created_at;

-- name: list_invitations(org_id, before, now, most)
SELECT * FROM invitations
WHERE org_id = :org_id AND (:before::text = '' OR id < :before) AND accepted_at IS NULL AND revoked_at IS NULL
    AND expires_at > :now
ORDER BY id DESC LIMIT :most;

-- name: revoke_invitation(invitation_id, org_id, now)^
UPDATE invitations SET revoked_at = :now
WHERE id = :invitation_id AND org_id = :org_id AND accepted_at IS NULL AND revoked_at IS NULL RETURNING *;

-- name: find_invitation(code_hash)$
SELECT org_id FROM invitations WHERE code_hash = :code_hash;

-- name: accept_invitation(code_hash, user_id, now)^
-- No row: there is none that this user may accept now. Two at once: one of them gets the row.
UPDATE invitations i SET accepted_at = :now, accepted_by = u.id
FROM users u
WHERE i.code_hash = :code_hash AND u.id = :user_id AND u.deleted_at IS NULL AND lower(u.email) = lower(i.email)
    AND i.accepted_at IS NULL AND i.revoked_at IS NULL AND i.expires_at > :now
RETURNING i.*;

-- name: add_service_account(id, org_id, name, role, created_by, now)^
INSERT INTO service_accounts (id, org_id, name, role, created_by, created_at)
VALUES (:id, :org_id, :name, :role, :created_by, :now) RETURNING *;

-- name: count_service_accounts(org_id)$
SELECT count(*) FROM service_accounts WHERE org_id = :org_id AND deleted_at IS NULL;

-- name: list_service_accounts(org_id, before, most)
SELECT * FROM service_accounts
WHERE org_id = :org_id AND (:before::text = '' OR id < :before) AND deleted_at IS NULL ORDER BY id DESC LIMIT :most;

-- name: get_service_account(service_account_id, org_id)^
SELECT s.*, r.scopes AS role_scopes FROM service_accounts s
LEFT JOIN roles r ON r.org_id = s.org_id AND r.name = s.role
WHERE s.id = :service_account_id AND s.org_id = :org_id AND s.deleted_at IS NULL;

-- name: delete_service_account(service_account_id, now)!
UPDATE service_accounts SET deleted_at = :now WHERE id = :service_account_id;

-- name: end_keys_of_service_account(service_account_id)!
UPDATE api_keys SET is_active = false WHERE service_account_id = :service_account_id AND is_active;

-- name: list_organisation_keys(org_id, before, most)
SELECT * FROM api_keys WHERE org_id = :org_id AND (:before::text = '' OR id < :before) ORDER BY id DESC LIMIT :most;

-- name: revoke_organisation_key(key_id, org_id)^
UPDATE api_keys SET is_active = false WHERE id = :key_id AND org_id = :org_id RETURNING *;

-- Members of an organisation who are given a role together, beside their own.
CREATE TABLE teams (
    id text PRIMARY KEY,
    org_id text NOT NULL REFERENCES organisations (id),
    name text NOT NULL,
    role text NOT NULL,  -- empty: none
    revision bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL,
    UNIQUE (org_id, name),
    UNIQUE (org_id, id)
);

-- Who is not in the organisation any more is in none of its teams.
CREATE TABLE team_members (
    org_id text NOT NULL,
    team_id text NOT NULL,
    user_id text NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (team_id, user_id),
    FOREIGN KEY (org_id, team_id) REFERENCES teams (org_id, id) ON DELETE CASCADE,
    FOREIGN KEY (org_id, user_id) REFERENCES members (org_id, user_id) ON DELETE CASCADE
);
CREATE INDEX team_members_user ON team_members (org_id, user_id);

-- The roles that a member has by teams: a list of [name, scopes where the role is the organisation's own]; null: none.
CREATE FUNCTION team_roles(of_org text, of_user text) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_agg(DISTINCT jsonb_build_array(t.role, r.scopes))
    FROM team_members m JOIN teams t ON t.id = m.team_id LEFT JOIN roles r ON r.org_id = t.org_id AND r.name = t.role
    WHERE m.org_id = of_org AND m.user_id = of_user AND t.role <> ''
$$;

CREATE OR REPLACE VIEW key_principals AS
SELECT k.key_hash, k.id AS key_id, coalesce(k.user_id, k.service_account_id, k.org_id) AS principal_id, k.org_id, k.scopes,
    k.test, k.expires_at, k.is_active, k.call_limit AS key_call_limit, o.handle, o.tier, o.call_limit, o.personal_of,
    owner.role AS owner_role, r.scopes AS role_scopes, coalesce(u.is_verified, true) AS is_verified,
    CASE WHEN k.user_id IS NOT NULL THEN m.role WHEN k.service_account_id IS NOT NULL THEN s.role ELSE 'admin' END
        AS member_role, k.rules, team_roles(m.org_id, m.user_id) AS team_roles
FROM api_keys k
JOIN organisations o ON o.id = k.org_id
LEFT JOIN users owner ON owner.id = o.personal_of
LEFT JOIN users u ON u.id = k.user_id
LEFT JOIN members m ON m.org_id = k.org_id AND m.user_id = k.user_id
LEFT JOIN service_accounts s ON s.id = k.service_account_id AND s.deleted_at IS NULL
LEFT JOIN roles r ON r.org_id = k.org_id AND r.name = coalesce(m.role, s.role)
WHERE (k.user_id IS NULL OR (m.user_id IS NOT NULL AND u.deleted_at IS NULL))
    AND (k.service_account_id IS NULL OR s.id IS NOT NULL)
    AND owner.deleted_at IS NULL;

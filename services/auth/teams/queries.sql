-- name: count_teams(org_id)$
SELECT count(*) FROM teams WHERE org_id = :org_id;

-- name: add_team(id, org_id, name, role, now)!
INSERT INTO teams (id, org_id, name, role, created_at) VALUES (:id, :org_id, :name, :role, :now);

-- name: get_team(team_id, org_id)^
SELECT t.*, r.scopes AS role_scopes, (SELECT count(*) FROM team_members m WHERE m.team_id = t.id) AS member_count
FROM teams t LEFT JOIN roles r ON r.org_id = t.org_id AND r.name = t.role
WHERE t.id = :team_id AND t.org_id = :org_id;

-- name: list_teams(org_id, user_id, after, most)
SELECT t.*, (SELECT count(*) FROM team_members m WHERE m.team_id = t.id) AS member_count
FROM teams t
WHERE t.org_id = :org_id AND t.name > :after AND (:user_id::text = ''
    OR EXISTS (SELECT FROM team_members m WHERE m.team_id = t.id AND m.user_id = :user_id))
ORDER BY t.name LIMIT :most;

-- name: update_team(team_id, name, role)!
UPDATE teams SET name = :name, role = :role, revision = revision + 1 WHERE id = :team_id;

-- name: delete_team(team_id)!
DELETE FROM teams WHERE id = :team_id;

-- name: list_team_members(team_id, org_id, after, most)
SELECT m.user_id, m.role, m.created_at, u.username, u.email, u.display_name
FROM team_members t JOIN members m ON m.org_id = t.org_id AND m.user_id = t.user_id JOIN users u ON u.id = m.user_id
WHERE t.team_id = :team_id AND t.org_id = :org_id AND u.deleted_at IS NULL AND t.user_id > :after
ORDER BY t.user_id LIMIT :most;

-- name: add_team_member(team_id, org_id, user_id, now)!
-- Who is in it stays in it.
INSERT INTO team_members (team_id, org_id, user_id, created_at) VALUES (:team_id, :org_id, :user_id, :now)
ON CONFLICT DO NOTHING;

-- name: remove_team_member(team_id, user_id)$
DELETE FROM team_members WHERE team_id = :team_id AND user_id = :user_id RETURNING user_id;

-- name: add_grant(id, org_id, amount, priority, expires_at, reason, now)
-- None when a repetition finds it there.
INSERT INTO credit_grants (id, org_id, amount, remaining, priority, expires_at, reason, created_at)
VALUES (:id, :org_id, :amount, :amount, :priority, :expires_at, :reason, :now)
ON CONFLICT DO NOTHING RETURNING id;

-- name: get_grant(id)^
SELECT * FROM credit_grants WHERE id = :id;

-- name: list_grants(org_id, before, most)
SELECT * FROM credit_grants WHERE org_id = :org_id AND (:before::text IS NULL OR id < :before)
ORDER BY id DESC LIMIT :most;

-- name: left(org_ids)
-- Whatever was not spent, also what has expired: calls that ran before may not be posted yet.
SELECT id, org_id, remaining, priority, expires_at, created_at FROM credit_grants
WHERE org_id = ANY(:org_ids::text[]) AND remaining > 0;

-- name: usable(org_id, now)^
SELECT coalesce(sum(remaining), 0)::bigint AS amount, min(expires_at) AS until FROM credit_grants
WHERE org_id = :org_id AND remaining > 0 AND (expires_at IS NULL OR expires_at > :now);

-- name: add_burns(grant_ids, causes, amounts)!
INSERT INTO credit_burns (grant_id, cause, amount)
SELECT * FROM unnest(:grant_ids::text[], :causes::text[], :amounts::bigint[]);

-- name: burn(ids, amounts)!
UPDATE credit_grants g SET remaining = g.remaining - t.m
FROM unnest(:ids::text[], :amounts::bigint[]) AS t (i, m) WHERE g.id = t.i;

-- name: burnt_by(cause)
SELECT g.priority, g.expires_at, g.reason, b.amount FROM credit_burns b JOIN credit_grants g ON g.id = b.grant_id
WHERE b.cause = :cause ORDER BY g.id;

-- name: expired(now, most)
SELECT g.id, g.org_id FROM credit_grants g
WHERE g.remaining > 0 AND g.expires_at <= :now
    AND NOT EXISTS (SELECT FROM leases l WHERE l.org_id = g.org_id AND NOT l.closed AND l.created_at < g.expires_at)
ORDER BY g.id LIMIT :most;

-- name: lapse(ids, now)
UPDATE credit_grants g SET lapsed = g.remaining, remaining = 0
WHERE g.id = ANY(:ids::text[]) AND g.remaining > 0 AND g.expires_at <= :now
    AND NOT EXISTS (SELECT FROM leases l WHERE l.org_id = g.org_id AND NOT l.closed AND l.created_at < g.expires_at)
RETURNING g.id, g.org_id, g.lapsed;

-- name: set_limit(org_id, credit_limit)!
UPDATE wallets SET credit_limit = :credit_limit WHERE org_id = :org_id;

-- name: wrong_grants()
SELECT g.id, g.amount, g.remaining, g.lapsed, coalesce(b.burnt, 0)::bigint AS burnt FROM credit_grants g
LEFT JOIN (SELECT grant_id, sum(amount) AS burnt FROM credit_burns GROUP BY grant_id) b ON b.grant_id = g.id
WHERE g.amount <> g.remaining + g.lapsed + coalesce(b.burnt, 0) LIMIT 100;

-- name: wrong_credit()
-- Of each organisation: what its account of promotional credit holds, and what is left of its grants.
SELECT coalesce(a.org_id, g.org_id) AS org_id, coalesce(a.balance, 0) AS balance, coalesce(g.remaining, 0)::bigint AS remaining
FROM (
    SELECT a.org_id, b.balance FROM accounts a JOIN balances b ON b.account_id = a.id WHERE a.kind = 'promotional_credit'
) a FULL JOIN (SELECT org_id, sum(remaining) AS remaining FROM credit_grants GROUP BY org_id) g ON g.org_id = a.org_id
WHERE coalesce(a.balance, 0) <> coalesce(g.remaining, 0) LIMIT 100;

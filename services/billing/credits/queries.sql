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

-- name: spent_by(org_id, request_id)
SELECT g.id, g.priority, g.expires_at, g.created_at, (b.amount - coalesce(r.amount, 0))::bigint AS spent
FROM credit_grants g JOIN credit_burns b ON b.grant_id = g.id AND b.cause = :request_id
LEFT JOIN (
    SELECT grant_id, sum(amount) AS amount FROM credit_returns WHERE request_id = :request_id GROUP BY grant_id
) r ON r.grant_id = g.id
WHERE g.org_id = :org_id;

-- name: add_returns(grant_ids, cause, request_id, amounts)!
INSERT INTO credit_returns (grant_id, cause, request_id, amount)
SELECT g, :cause, :request_id, m FROM unnest(:grant_ids::text[], :amounts::bigint[]) AS t (g, m);

-- name: expired(now, most)
SELECT g.id, g.org_id FROM credit_grants g
WHERE g.remaining > 0 AND g.expires_at <= :now
    AND NOT EXISTS (SELECT FROM leases l WHERE l.org_id = g.org_id AND NOT l.closed AND l.created_at < g.expires_at)
ORDER BY g.id LIMIT :most;

-- name: lapse(ids, now)
-- Behind the wallets' locks, with which grants change.
UPDATE credit_grants g SET lapsed = g.lapsed + was.remaining, remaining = 0, lapses = g.lapses + 1
FROM credit_grants was
WHERE was.id = g.id AND g.id = ANY(:ids::text[]) AND g.remaining > 0 AND g.expires_at <= :now
    AND NOT EXISTS (SELECT FROM leases l WHERE l.org_id = g.org_id AND NOT l.closed AND l.created_at < g.expires_at)
RETURNING g.id, g.org_id, was.remaining AS lapsed, g.lapses - 1 AS earlier;

-- name: set_limit(org_id, credit_limit)!
UPDATE wallets SET credit_limit = :credit_limit WHERE org_id = :org_id;

-- name: wrong_grants()
SELECT g.id, g.amount, g.remaining, g.lapsed, (coalesce(b.burnt, 0) - coalesce(r.back, 0))::bigint AS burnt
FROM credit_grants g
LEFT JOIN (SELECT grant_id, sum(amount) AS burnt FROM credit_burns GROUP BY grant_id) b ON b.grant_id = g.id
LEFT JOIN (SELECT grant_id, sum(amount) AS back FROM credit_returns GROUP BY grant_id) r ON r.grant_id = g.id
WHERE g.amount <> g.remaining + g.lapsed + coalesce(b.burnt, 0) - coalesce(r.back, 0) LIMIT 100;

-- name: wrong_returns()
-- What is back of a call in grants is not what its refund or correction says, or more than the call had spent of them.
SELECT r.grant_id AS id, r.cause, r.amount FROM credit_returns r
LEFT JOIN credit_burns b ON b.grant_id = r.grant_id AND b.cause = r.request_id
CROSS JOIN LATERAL (
    SELECT coalesce(sum(x.amount) FILTER (WHERE x.grant_id = r.grant_id), 0) AS of_grant,
        coalesce(sum(x.amount) FILTER (WHERE x.cause = r.cause), 0) AS of_cause
    FROM credit_returns x WHERE x.request_id = r.request_id
) s
LEFT JOIN LATERAL (
    SELECT sum(e.amount) AS moved FROM postings p JOIN entries e ON e.posting_id = p.id
    JOIN accounts a ON a.id = e.account_id WHERE p.cause = r.cause AND a.kind = 'promotional_credit'
) m ON true
WHERE s.of_grant > coalesce(b.amount, 0) OR s.of_cause <> coalesce(m.moved, 0) LIMIT 100;

-- name: wrong_credit()
-- Of each organisation: what its account of promotional credit holds, and what is left of its grants.
SELECT coalesce(a.org_id, g.org_id) AS org_id, coalesce(a.balance, 0) AS balance, coalesce(g.remaining, 0)::bigint AS remaining
FROM (
    SELECT a.org_id, b.balance FROM accounts a JOIN balances b ON b.account_id = a.id WHERE a.kind = 'promotional_credit'
) a FULL JOIN (SELECT org_id, sum(remaining) AS remaining FROM credit_grants GROUP BY org_id) g ON g.org_id = a.org_id
WHERE coalesce(a.balance, 0) <> coalesce(g.remaining, 0) LIMIT 100;

-- name: add_accounts(ids, org_ids, kinds, currency)!
INSERT INTO accounts (id, org_id, kind, currency)
SELECT i, o, k, :currency FROM unnest(:ids::text[], :org_ids::text[], :kinds::text[]) AS t (i, o, k)
ON CONFLICT DO NOTHING;

-- name: get_accounts(org_ids, kinds, currency)
SELECT a.id, a.org_id, a.kind FROM accounts a
JOIN unnest(:org_ids::text[], :kinds::text[]) AS t (o, k) ON a.org_id = t.o AND a.kind = t.k
WHERE a.currency = :currency;

-- name: posted(causes)
SELECT cause FROM postings WHERE cause = ANY(:causes::text[]);

-- name: lock_wallets(org_ids, lease_ids)
-- Those of organisations and of the owners of leases. Every transaction that moves money takes the wallets first, in this
-- order, so that no two wait for each other.
SELECT org_id FROM wallets
WHERE org_id = ANY(:org_ids::text[]) OR org_id IN (SELECT l.org_id FROM leases l WHERE l.id = ANY(:lease_ids::text[]))
ORDER BY org_id FOR UPDATE;

-- name: move_balances(account_ids, amounts)!
INSERT INTO balances AS b (account_id, balance)
SELECT a, m FROM unnest(:account_ids::text[], :amounts::bigint[]) AS t (a, m) ORDER BY a
ON CONFLICT (account_id) DO UPDATE SET balance = b.balance + excluded.balance;

-- name: get_balance(org_id, kind, currency)$
SELECT b.balance FROM balances b JOIN accounts a ON a.id = b.account_id
WHERE a.org_id = :org_id AND a.kind = :kind AND a.currency = :currency;

-- name: add_wallet(org_id, account_id)!
INSERT INTO wallets (org_id, account_id) VALUES (:org_id, :account_id) ON CONFLICT DO NOTHING;

-- name: get_wallet(org_id)^
SELECT w.org_id, w.reserved, w.credit_limit, coalesce(b.balance, 0) AS balance
FROM wallets w LEFT JOIN balances b ON b.account_id = w.account_id WHERE w.org_id = :org_id;

-- name: reserve(org_ids, amounts)!
UPDATE wallets w SET reserved = w.reserved + t.m
FROM unnest(:org_ids::text[], :amounts::bigint[]) AS t (o, m) WHERE w.org_id = t.o;

-- name: add_lease(id, org_id, worker_id, granted, expires_at, ends_at, key_id, model_id, now)!
INSERT INTO leases (id, org_id, worker_id, granted, expires_at, ends_at, key_id, model_id, created_at)
VALUES (:id, :org_id, :worker_id, :granted, :expires_at, :ends_at, :key_id, :model_id, :now);

-- name: renew_leases(ids, worker_id, expires_at)
UPDATE leases SET expires_at = :expires_at
WHERE id = ANY(:ids::text[]) AND worker_id = :worker_id AND NOT closed AND reported IS NULL RETURNING id, ends_at;

-- name: end_leases(org_id, at)!
-- No call begins to spend from the organisation's leases after an instant.
UPDATE leases SET ends_at = :at WHERE org_id = :org_id AND NOT closed AND ends_at > :at;

-- name: lock_leases(ids)
SELECT id, org_id FROM leases WHERE id = ANY(:ids::text[]) ORDER BY id FOR UPDATE;

-- name: post_to_leases(ids, amounts)!
-- What was posted is no longer reserved, and nothing is of a lease whose worker is done and of which all is posted: that
-- is closed. A closed lease reserves nothing, so nothing of it is freed.
WITH spent AS (
    UPDATE leases l SET posted = l.posted + t.m, closed = coalesce(l.posted + t.m >= l.reported, false)
    FROM unnest(:ids::text[], :amounts::bigint[]) AS t (i, m) WHERE l.id = t.i AND NOT l.closed
    RETURNING l.org_id, t.m + CASE WHEN l.closed THEN l.granted - l.posted ELSE 0 END AS freed
)
UPDATE wallets w SET reserved = w.reserved - f.freed
FROM (SELECT org_id, sum(freed)::bigint AS freed FROM spent GROUP BY org_id) f WHERE w.org_id = f.org_id;

-- name: report_leases(ids, spent, worker_id)!
UPDATE leases l SET reported = t.s FROM unnest(:ids::text[], :spent::bigint[]) AS t (i, s)
WHERE l.id = t.i AND l.worker_id = :worker_id AND NOT l.closed AND l.reported IS NULL;

-- name: close_settled(ids)
-- Leases whose worker is done and of which all is posted.
UPDATE leases SET closed = true WHERE id = ANY(:ids::text[]) AND NOT closed AND posted >= reported
RETURNING org_id, granted - posted AS rest;

-- name: expired_leases(before, most)
SELECT id, org_id, expires_at FROM leases WHERE NOT closed AND expires_at < :before ORDER BY expires_at LIMIT :most;

-- name: close_expired(ids, before)
UPDATE leases SET closed = true WHERE id = ANY(:ids::text[]) AND NOT closed AND expires_at < :before
RETURNING id, org_id, worker_id, granted - posted AS rest;

-- name: add_transaction(id, user_id, org_id, amount, currency, type, status, cause, now)^
INSERT INTO transactions (id, user_id, org_id, amount, currency, type, status, cause, created_at)
VALUES (:id, :user_id, :org_id, :amount, :currency, :type, :status, :cause, :now)
ON CONFLICT (cause) DO UPDATE SET cause = excluded.cause RETURNING *;

-- name: list_transactions(org_id, before, most)
SELECT * FROM transactions WHERE org_id = :org_id AND (:before::text IS NULL OR id < :before)
ORDER BY id DESC LIMIT :most;

-- name: statement(org_id, start, until, before_id, before_account, most)
-- Newest first: each account's index is walked backwards from the last page's end, for no more rows than the page has.
SELECT x.id, x.cause, x.kind, x.amount, x.created_at FROM accounts a CROSS JOIN LATERAL (
    SELECT p.id, p.cause, a.kind, e.amount, p.created_at FROM org_entries e JOIN postings p ON p.id = e.posting_id
    WHERE e.account_id = a.id AND (e.kind = a.kind OR e.kind IS NULL) AND p.created_at >= :start AND p.created_at < :until
        AND p.id <= :before_id AND e.posting_id <= :before_id AND (e.posting_id < :before_id OR a.kind < :before_account)
    ORDER BY e.posting_id DESC LIMIT :most
) x
WHERE a.org_id = :org_id ORDER BY x.id DESC, x.kind DESC LIMIT :most;

-- name: held_at(org_id, at)$
-- What the organisation's accounts hold together by their entries before an instant.
SELECT coalesce(sum(e.amount), 0)::bigint FROM org_entries e
JOIN accounts a ON a.id = e.account_id JOIN postings p ON p.id = e.posting_id
WHERE a.org_id = :org_id AND p.created_at < :at;

-- name: postings_of(causes)
SELECT p.id, p.cause, p.created_at, e.account_ids, e.org_ids, e.kinds, e.amounts FROM postings p CROSS JOIN LATERAL (
    SELECT array_agg(e.account_id) AS account_ids, array_agg(a.org_id) AS org_ids, array_agg(a.kind) AS kinds,
        array_agg(e.amount) AS amounts
    FROM entries e LEFT JOIN accounts a ON a.id = e.account_id WHERE e.posting_id = p.id
) e
WHERE p.cause = ANY(:causes::text[]);

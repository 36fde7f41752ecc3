-- name: add_accounts(ids, org_ids, kinds, currency)!
INSERT INTO accounts (id, org_id, kind, currency)
SELECT i, o, k, :currency FROM unnest(:ids::text[], :org_ids::text[], :kinds::text[]) AS t (i, o, k)
ON CONFLICT DO NOTHING;

-- name: get_accounts(org_ids, kinds, currency)
SELECT a.id, a.org_id, a.kind FROM accounts a
JOIN unnest(:org_ids::text[], :kinds::text[]) AS t (o, k) ON a.org_id = t.o AND a.kind = t.k
WHERE a.currency = :currency;

-- name: add_postings(ids, causes, kinds, digests, now)
-- The causes that were not posted before, and are now.
INSERT INTO postings (id, cause, kind, digest, created_at)
SELECT i, c, k, d, :now FROM unnest(:ids::text[], :causes::text[], :kinds::text[], :digests::bytea[]) AS t (i, c, k, d)
ON CONFLICT (cause) DO NOTHING RETURNING cause;

-- name: add_entries(posting_ids, account_ids, amounts)!
INSERT INTO entries (posting_id, account_id, amount)
SELECT * FROM unnest(:posting_ids::text[], :account_ids::text[], :amounts::bigint[]);

-- name: posted(causes)
SELECT cause FROM postings WHERE cause = ANY(:causes::text[]);

-- name: lock_wallets(org_ids)
-- Every transaction that moves money takes the wallets first, in this order, so that no two wait for each other.
SELECT org_id FROM wallets WHERE org_id = ANY(:org_ids::text[]) ORDER BY org_id FOR UPDATE;

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

-- name: lease_owners(ids)
SELECT DISTINCT org_id FROM leases WHERE id = ANY(:ids::text[]);

-- name: post_to_leases(ids, amounts)
-- What was posted is no longer reserved; a closed lease reserves nothing, so nothing of it is freed.
UPDATE leases l SET posted = l.posted + t.m
FROM unnest(:ids::text[], :amounts::bigint[]) AS t (i, m) WHERE l.id = t.i AND NOT l.closed
RETURNING l.org_id, t.m AS amount;

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
    SELECT p.id, p.cause, a.kind, e.amount, p.created_at FROM entries e JOIN postings p ON p.id = e.posting_id
    WHERE e.account_id = a.id AND p.created_at >= :start AND p.created_at < :until
        AND e.posting_id <= :before_id AND (e.posting_id < :before_id OR a.kind < :before_account)
    ORDER BY e.posting_id DESC LIMIT :most
) x
WHERE a.org_id = :org_id ORDER BY x.id DESC, x.kind DESC LIMIT :most;

-- name: held_at(org_id, at)$
-- What the organisation's accounts hold together by their entries before an instant.
SELECT coalesce(sum(e.amount), 0)::bigint FROM entries e
JOIN accounts a ON a.id = e.account_id JOIN postings p ON p.id = e.posting_id
WHERE a.org_id = :org_id AND p.created_at < :at;

-- name: trial_balance()
SELECT a.kind, sum(b.balance)::bigint AS balance FROM balances b JOIN accounts a ON a.id = b.account_id GROUP BY a.kind;

-- name: unbalanced_postings()
SELECT p.id, coalesce(sum(e.amount), 0)::bigint AS total FROM postings p LEFT JOIN entries e ON e.posting_id = p.id
GROUP BY p.id HAVING coalesce(sum(e.amount), 0) <> 0 OR count(e.posting_id) = 0 LIMIT 100;

-- name: orphan_entries()
SELECT e.posting_id, count(*) AS count FROM entries e LEFT JOIN postings p ON p.id = e.posting_id
WHERE p.id IS NULL GROUP BY e.posting_id LIMIT 100;

-- name: unexplained_postings()
-- Those of calls are compared with usage, row by row; a reversal's and a payout's amounts are too.
SELECT p.id, p.cause FROM postings p LEFT JOIN transactions t ON t.cause = p.cause
    LEFT JOIN reversals r ON r.id = split_part(p.cause, ':', 1)
    LEFT JOIN payouts o ON o.id = split_part(p.cause, ':', 1)
    LEFT JOIN corrections c ON c.id = p.cause
WHERE t.id IS NULL AND r.id IS NULL AND o.id IS NULL AND c.id IS NULL AND NOT starts_with(p.cause, 'req_') LIMIT 100;

-- name: wrong_corrections()
-- The corrections of a call follow each other without a gap, from what it was charged, and each moved what it says.
WITH moved AS (
    SELECT p.cause, sum(e.amount) FILTER (WHERE a.kind IN ('customer_wallet', 'promotional_credit')) AS paid,
        sum(e.amount) FILTER (WHERE a.kind = 'promotional_credit') AS credit,
        sum(e.amount) FILTER (WHERE a.kind = 'platform_fee') AS fee
    FROM postings p JOIN entries e ON e.posting_id = p.id JOIN accounts a ON a.id = e.account_id
    WHERE p.cause IN (SELECT id FROM corrections UNION SELECT request_id FROM corrections) GROUP BY p.cause
), numbered AS (
    SELECT c.*, row_number() OVER w AS place, lag(c.cost) OVER w AS before
    FROM corrections c WINDOW w AS (PARTITION BY c.request_id ORDER BY c.number)
)
SELECT c.id, c.cost_change, -coalesce(m.paid, 0)::bigint AS moved FROM numbered c
LEFT JOIN moved m ON m.cause = c.id LEFT JOIN moved f ON f.cause = c.request_id
WHERE c.number <> c.place OR coalesce(m.paid, 0) <> -c.cost_change OR coalesce(m.fee, 0) <> c.fee_change
    OR c.cost - c.cost_change <> coalesce(c.before, -coalesce(f.paid, 0)) OR coalesce(m.credit, 0) <> c.credit_back LIMIT 100;

-- name: wrong_transactions()
SELECT t.id, t.amount, coalesce(m.moved, 0)::bigint AS moved
FROM transactions t LEFT JOIN postings p ON p.cause = t.cause LEFT JOIN LATERAL (
    SELECT sum(e.amount) AS moved FROM entries e JOIN accounts a ON a.id = e.account_id
    WHERE e.posting_id = p.id AND a.org_id = t.org_id
) m ON true
WHERE t.status = 'succeeded' AND t.amount <> coalesce(m.moved, 0) LIMIT 100;

-- name: wrong_balances()
SELECT coalesce(b.account_id, s.account_id) AS account_id, coalesce(b.balance, 0) AS balance,
    coalesce(s.total, 0)::bigint AS total
FROM balances b FULL JOIN (SELECT account_id, sum(amount) AS total FROM entries GROUP BY account_id) s
    ON s.account_id = b.account_id
WHERE coalesce(b.balance, 0) <> coalesce(s.total, 0) LIMIT 100;

-- name: wrong_reservations()
SELECT w.org_id, w.reserved, coalesce(l.held, 0)::bigint AS held
FROM wallets w LEFT JOIN (
    SELECT org_id, sum(granted - posted) AS held FROM leases WHERE NOT closed GROUP BY org_id
) l ON l.org_id = w.org_id
WHERE w.reserved <> coalesce(l.held, 0) LIMIT 100;

-- name: negative_wallets()
-- A correction may owe what the wallet does not hold; nothing else spends below zero.
SELECT w.org_id, b.balance FROM wallets w JOIN balances b ON b.account_id = w.account_id
LEFT JOIN (SELECT org_id, sum(cost_change) AS owed FROM corrections WHERE cost_change > 0 GROUP BY org_id) c
    ON c.org_id = w.org_id
WHERE b.balance < -w.credit_limit - coalesce(c.owed, 0) LIMIT 100;

-- name: wrong_wallets()
SELECT w.org_id, w.account_id FROM wallets w LEFT JOIN accounts a ON a.id = w.account_id
WHERE a.org_id IS DISTINCT FROM w.org_id OR a.kind <> 'customer_wallet' LIMIT 100;

-- name: postings_after(cause, most)
-- In order of their causes, with their entries: for the reconciler, which walks them all. LATERAL looks the entries up by
-- posting; a join might read the whole table for every page.
SELECT p.id, p.cause, p.kind, p.digest, e.account_ids, e.org_ids, e.kinds, e.amounts
FROM (SELECT * FROM postings WHERE cause COLLATE "C" > :cause ORDER BY cause COLLATE "C" LIMIT :most) p
CROSS JOIN LATERAL (
    SELECT array_agg(e.account_id) AS account_ids, array_agg(a.org_id) AS org_ids, array_agg(a.kind) AS kinds,
        array_agg(e.amount) AS amounts
    FROM entries e LEFT JOIN accounts a ON a.id = e.account_id WHERE e.posting_id = p.id
) e
ORDER BY p.cause COLLATE "C";

-- name: postings_of(causes)
SELECT p.id, p.cause, p.created_at, e.account_ids, e.org_ids, e.kinds, e.amounts FROM postings p CROSS JOIN LATERAL (
    SELECT array_agg(e.account_id) AS account_ids, array_agg(a.org_id) AS org_ids, array_agg(a.kind) AS kinds,
        array_agg(e.amount) AS amounts
    FROM entries e LEFT JOIN accounts a ON a.id = e.account_id WHERE e.posting_id = p.id
) e
WHERE p.cause = ANY(:causes::text[]);

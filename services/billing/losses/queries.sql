-- name: add_loss(reversal_id, org_id, amount, since, until, now)!
INSERT INTO losses (reversal_id, org_id, amount, paid_since, paid_until, status, created_at)
VALUES (:reversal_id, :org_id, :amount, :since, :until, 'open', :now) ON CONFLICT DO NOTHING;

-- name: due_losses(most)
-- Those to be traced, and those whose dispute has ended otherwise than they have.
SELECT l.reversal_id FROM losses l JOIN reversals r ON r.id = l.reversal_id
WHERE l.status = 'open' OR l.status = 'held' AND r.status <> 'pending' OR l.status = 'charged' AND r.status = 'returned'
ORDER BY l.reversal_id LIMIT :most;

-- name: get_loss(reversal_id)^
SELECT l.*, r.status AS dispute, (
    SELECT count(*) FROM losses o WHERE o.org_id = l.org_id AND o.status IN ('held', 'charged')
) AS others
FROM losses l JOIN reversals r ON r.id = l.reversal_id WHERE l.reversal_id = :reversal_id;

-- name: lock_loss(reversal_id)^
SELECT l.*, r.status AS dispute, (
    SELECT count(*) FROM losses o WHERE o.org_id = l.org_id AND o.status IN ('held', 'charged')
) AS others
FROM losses l JOIN reversals r ON r.id = l.reversal_id WHERE l.reversal_id = :reversal_id FOR UPDATE OF l;

-- name: paid_calls(org_id, since, until, before, most)
-- Calls that an organisation's wallet paid within a time, newest first, as they stand after corrections; without those that
-- were refunded, and those that other disputed money paid.
SELECT e.posting_id, s.org_id AS publisher_org_id,
    (-e.amount + coalesce(k.cost, 0) + coalesce(k.credit, 0))::bigint AS paid,
    (s.earned + coalesce(k.cost, 0) - coalesce(k.fee, 0))::bigint AS earned, (s.cost + coalesce(k.cost, 0))::bigint AS cost
FROM accounts a JOIN org_entries e ON e.account_id = a.id JOIN postings p ON p.id = e.posting_id
CROSS JOIN LATERAL (
    SELECT max(b.org_id) FILTER (WHERE b.kind = 'publisher_payable') AS org_id,
        coalesce(sum(x.amount) FILTER (WHERE b.kind = 'publisher_payable'), 0) AS earned,
        sum(x.amount) FILTER (WHERE x.amount > 0) AS cost
    FROM entries x JOIN accounts b ON b.id = x.account_id WHERE x.posting_id = e.posting_id
) s
LEFT JOIN LATERAL (
    SELECT sum(cost_change) AS cost, sum(fee_change) AS fee, sum(credit_back) AS credit FROM corrections
    WHERE request_id = p.cause
) k ON true
WHERE a.org_id = :org_id AND a.kind = 'customer_wallet' AND p.kind = 'charge' AND e.posting_id < :before
    AND p.created_at >= :since AND p.created_at < :until AND s.org_id IS NOT NULL
    AND NOT EXISTS (SELECT FROM call_refunds r WHERE r.request_id = p.cause)
    AND NOT EXISTS (
        SELECT FROM losses l WHERE l.org_id = :org_id AND l.status IN ('held', 'charged')
            AND e.posting_id >= l.first_posting AND e.posting_id <= l.last_posting
    )
ORDER BY e.posting_id DESC LIMIT :most;

-- name: add_shares(reversal_id, publishers, calls, amounts)!
INSERT INTO loss_shares (reversal_id, publisher_org_id, calls, amount)
SELECT :reversal_id, p, c, a FROM unnest(:publishers::text[], :calls::bigint[], :amounts::bigint[]) AS t (p, c, a);

-- name: get_shares(reversal_id)
SELECT publisher_org_id, amount FROM loss_shares WHERE reversal_id = :reversal_id ORDER BY publisher_org_id;

-- name: hold_loss(reversal_id, first, last)!
UPDATE losses SET status = 'held', first_posting = :first, last_posting = :last WHERE reversal_id = :reversal_id;

-- name: end_loss(reversal_id, status, now)!
UPDATE losses SET status = :status, settled_at = :now WHERE reversal_id = :reversal_id;

-- name: held_of(publisher_org_id)$
-- What of a publisher's earnings open disputes may take.
SELECT coalesce(sum(s.amount), 0)::bigint FROM loss_shares s JOIN losses l ON l.reversal_id = s.reversal_id
WHERE s.publisher_org_id = :publisher_org_id AND l.status = 'held';

-- name: shares_between(after, until)
-- Of disputes begun in a time, by the digits of their ids; with what was lost, and what all shares of it are together.
SELECT s.reversal_id, s.publisher_org_id, s.amount, l.status, l.amount AS lost, t.total
FROM loss_shares s JOIN losses l ON l.reversal_id = s.reversal_id
CROSS JOIN LATERAL (SELECT sum(amount)::bigint AS total FROM loss_shares WHERE reversal_id = s.reversal_id) t
WHERE split_part(s.reversal_id, '_', 2) COLLATE "C" >= :after AND split_part(s.reversal_id, '_', 2) COLLATE "C" < :until
ORDER BY s.reversal_id, s.publisher_org_id;

-- name: get_corrections(request_id)
SELECT * FROM corrections WHERE request_id = :request_id ORDER BY number;

-- name: add_correction(id, request_id, number, org_id, publisher_org_id, units, cost, cost_change, fee_change, credit_back, key_id, model_id, day, reason, user_id, now)!
INSERT INTO corrections (id, request_id, number, org_id, publisher_org_id, units, cost, cost_change, fee_change,
    credit_back, key_id, model_id, day, reason, user_id, created_at)
VALUES (:id, :request_id, :number, :org_id, :publisher_org_id, :units::text::jsonb, :cost, :cost_change, :fee_change,
    :credit_back, :key_id, :model_id, :day, :reason, :user_id, :now);

-- name: is_refunded(request_id)$
SELECT EXISTS (SELECT FROM call_refunds WHERE request_id = :request_id);

-- name: wrong_corrections(after, until)
-- The corrections of a call follow each other without a gap, from what it was charged, and each moved what it says.
WITH numbered AS (
    SELECT c.*, row_number() OVER w AS place, lag(c.cost) OVER w AS before FROM corrections c
    WHERE c.request_id >= :after AND c.request_id < :until WINDOW w AS (PARTITION BY c.request_id ORDER BY c.number)
), moved AS (
    SELECT p.cause, sum(e.amount) FILTER (WHERE a.kind IN ('customer_wallet', 'promotional_credit')) AS paid,
        sum(e.amount) FILTER (WHERE a.kind = 'promotional_credit') AS credit,
        sum(e.amount) FILTER (WHERE a.kind = 'platform_fee') AS fee
    FROM postings p JOIN entries e ON e.posting_id = p.id JOIN accounts a ON a.id = e.account_id
    WHERE p.cause IN (SELECT id FROM numbered UNION SELECT request_id FROM numbered) GROUP BY p.cause
)
SELECT c.id, c.cost_change, -coalesce(m.paid, 0)::bigint AS moved FROM numbered c
LEFT JOIN moved m ON m.cause = c.id LEFT JOIN moved f ON f.cause = c.request_id
WHERE c.number <> c.place OR coalesce(m.paid, 0) <> -c.cost_change OR coalesce(m.fee, 0) <> c.fee_change
    OR coalesce(m.credit, 0) <> c.credit_back
    OR c.cost - c.cost_change <> coalesce(c.before, -coalesce(f.paid, 0)) LIMIT 100;

-- name: unexplained_corrections(after, until)
SELECT p.id, p.cause FROM postings p LEFT JOIN corrections c ON c.id = p.cause
WHERE p.cause >= :after AND p.cause < :until AND c.id IS NULL LIMIT 100;

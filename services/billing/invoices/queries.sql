-- name: add_invoice(id, org_id, user_id, kind, currency, start, end_, now)$
-- Nothing when the period has its invoice.
INSERT INTO invoices (id, org_id, user_id, kind, status, currency, period_start, period_end, created_at)
VALUES (:id, :org_id, :user_id, :kind, 'draft', :currency, :start, :end_, :now)
ON CONFLICT (org_id, kind, period_start) DO NOTHING RETURNING id;

-- name: add_lines(ids, invoice_id, first, kinds, descriptions, subscriptions, model_ids, models, publishers, fees, meters, prices, quantities, calls, amounts, starts, ends)!
INSERT INTO invoice_lines (id, invoice_id, position, kind, description, subscription_id, model_id, model,
    publisher_org_id, fee_ppm, meter, price_id, quantity, calls, amount, period_start, period_end)
SELECT i, :invoice_id, :first + n - 1, k, d, s, mi, m, p, f, me, pr, q, c, a, st, en
FROM unnest(:ids::text[], :kinds::text[], :descriptions::text[], :subscriptions::text[], :model_ids::text[],
    :models::text[], :publishers::text[], :fees::integer[], :meters::text[], :prices::text[], :quantities::bigint[],
    :calls::bigint[], :amounts::bigint[], :starts::timestamptz[], :ends::timestamptz[])
    WITH ORDINALITY AS t (i, k, d, s, mi, m, p, f, me, pr, q, c, a, st, en, n);

-- name: get_lines(invoice_id)
SELECT * FROM invoice_lines WHERE invoice_id = :invoice_id ORDER BY position;

-- name: get_line(invoice_id, id)^
SELECT * FROM invoice_lines WHERE invoice_id = :invoice_id AND id = :id;

-- name: get_invoice(id)^
SELECT * FROM invoices WHERE id = :id;

-- name: lock_invoice(id)^
SELECT * FROM invoices WHERE id = :id FOR UPDATE;

-- name: list_invoices(org_id, before, most)
-- Final ones: a draft lasts for seconds, and is dropped when nothing comes on it.
SELECT * FROM invoices WHERE org_id = :org_id AND status <> 'draft' AND (:before::text IS NULL OR id < :before)
ORDER BY id DESC LIMIT :most;

-- name: drafts(settled, most)
SELECT * FROM invoices WHERE status = 'draft' AND (kind = 'invoice' OR created_at < :settled) ORDER BY id LIMIT :most;

-- name: drop_draft(id)!
DELETE FROM invoices WHERE id = :id AND status = 'draft';

-- name: take_number(issuer, year)$
INSERT INTO invoice_numbers AS n (issuer, year, last) VALUES (:issuer, :year, 1)
ON CONFLICT (issuer, year) DO UPDATE SET last = n.last + 1 RETURNING last;

-- name: finalise(id, number, status, prepaid, due, next_attempt_at, paid_at, now)^
UPDATE invoices SET number = :number, status = :status, prepaid = :prepaid, due = :due,
    next_attempt_at = :next_attempt_at, finalized_at = :now, paid_at = :paid_at
WHERE id = :id AND status = 'draft' RETURNING *;

-- name: due_invoices(now, most)
SELECT id, org_id FROM invoices WHERE next_attempt_at <= :now ORDER BY next_attempt_at LIMIT :most;

-- name: update_invoice(id, status, attempts, failure_code, first_failed_at, next_attempt_at, paid_at)^
UPDATE invoices SET status = :status, attempts = :attempts, failure_code = :failure_code,
    first_failed_at = :first_failed_at, next_attempt_at = :next_attempt_at, paid_at = :paid_at
WHERE id = :id RETURNING *;

-- name: failing_subscriptions(org_id)
-- Those with an open invoice that could not be collected so far.
SELECT DISTINCT l.subscription_id FROM invoices i JOIN invoice_lines l ON l.invoice_id = i.id
WHERE i.org_id = :org_id AND i.status = 'open' AND i.attempts > 0 AND l.subscription_id <> '';

-- name: charges(org_id, kinds, start, end_, after, until, most)
-- Calls and their refunds that moved accounts of these kinds within a time, in the order of their postings. `after` and
-- `until` bound the walk over the accounts' index; a posting is named after its call, which came before it.
SELECT e.posting_id, coalesce(r.request_id, p.cause) AS request_id, r.id IS NOT NULL AS refund,
    sum(e.amount)::bigint AS amount
FROM accounts a JOIN entries e ON e.account_id = a.id JOIN postings p ON p.id = e.posting_id
LEFT JOIN call_refunds r ON r.id = p.cause AND p.kind = 'call_refund'
WHERE a.org_id = :org_id AND a.kind = ANY(:kinds::text[]) AND e.posting_id > :after AND e.posting_id < :until
    AND p.kind IN ('charge', 'call_refund') AND p.created_at >= :start AND p.created_at < :end_
GROUP BY e.posting_id, r.request_id, p.cause, r.id ORDER BY e.posting_id LIMIT :most;

-- name: get_prices(ids)
SELECT * FROM prices WHERE id = ANY(:ids::text[]);

-- name: model_fees(org_id, start, end_)
-- What was paid within a time for subscriptions to a publisher's models.
SELECT l.model, l.model_id, l.fee_ppm, l.amount FROM invoice_lines l JOIN invoices i ON i.id = l.invoice_id
WHERE l.publisher_org_id = :org_id AND i.status = 'paid' AND i.paid_at >= :start AND i.paid_at < :end_
ORDER BY l.model, l.id;

-- name: invoices_between(after, until)
-- With what their lines say.
SELECT i.id, i.org_id, i.kind, i.status, i.number, i.due, i.prepaid, i.period_start, i.period_end, l.due AS due_lines,
    l.prepaid AS prepaid_lines
FROM invoices i CROSS JOIN LATERAL (
    SELECT coalesce(sum(amount) FILTER (WHERE kind IN ('subscription', 'proration')), 0)::bigint AS due,
        coalesce(sum(amount) FILTER (WHERE kind IN ('usage', 'earnings', 'platform_fee')), 0)::bigint AS prepaid
    FROM invoice_lines WHERE invoice_id = i.id
) l
WHERE i.id >= :after AND i.id < :until;

-- name: calls_of_invoices(after, until, first, last)
-- What calls of the periods of invoices took from wallet and credit, or brought the publisher. `first` and `last` bound
-- the ids of their postings.
SELECT i.id, sum(CASE i.kind WHEN 'invoice' THEN -e.amount ELSE e.amount END)::bigint AS moved
FROM invoices i JOIN accounts a ON a.org_id = i.org_id JOIN entries e ON e.account_id = a.id
JOIN postings p ON p.id = e.posting_id
WHERE i.id >= :after AND i.id < :until AND i.number IS NOT NULL AND e.posting_id > :first AND e.posting_id < :last
    AND p.created_at >= i.period_start AND p.created_at < i.period_end AND (
        i.kind = 'invoice' AND a.kind IN ('customer_wallet', 'promotional_credit')
            AND p.kind IN ('charge', 'call_refund')
        OR i.kind = 'self_billing' AND a.kind = 'publisher_payable' AND p.kind IN ('charge', 'call_refund', 'invoice')
    )
GROUP BY i.id;

-- name: number_gaps()
-- Issuers and years of which numbers are missing or too many.
SELECT n.issuer, n.year, n.last, count(i.id) AS found FROM invoice_numbers n
LEFT JOIN invoices i ON i.number ~ ('^' || n.issuer || '-' || n.year || '-[0-9]+$')
GROUP BY n.issuer, n.year, n.last HAVING count(i.id) <> n.last LIMIT 100;

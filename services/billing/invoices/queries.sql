-- name: add_invoice(id, org_id, user_id, kind, currency, start, end_, cause, corrects, owed, now)$
-- Nothing when the period has its invoice.
INSERT INTO invoices (id, org_id, user_id, kind, status, currency, period_start, period_end, cause, corrects, owed, created_at)
VALUES (:id, :org_id, :user_id, :kind, 'draft', :currency, :start, :end_, :cause, :corrects, :owed, :now)
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
SELECT i.*, c.number AS corrects_number FROM invoices i LEFT JOIN invoices c ON c.id = i.corrects WHERE i.id = :id;

-- name: lock_invoice(id)^
SELECT i.*, c.number AS corrects_number FROM invoices i LEFT JOIN invoices c ON c.id = i.corrects WHERE i.id = :id
FOR UPDATE OF i;

-- name: list_invoices(org_id, before, most)
-- Final ones: a draft lasts for seconds, and is dropped when nothing comes on it.
SELECT i.*, c.number AS corrects_number FROM invoices i LEFT JOIN invoices c ON c.id = i.corrects
WHERE i.org_id = :org_id AND i.status <> 'draft' AND (:before::text IS NULL OR i.id < :before)
ORDER BY i.id DESC LIMIT :most;

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

-- name: charges(org_id, kinds, earned, start, end_, after, first, until, most)
-- Calls, their refunds and corrections that moved accounts of these kinds within a time, in the order of their postings.
-- `after`, `first` and `until` bound the walk over the accounts' index; a posting is named after its call, which came before
-- it. A correction's has the time of its call, which may be long ago. What has a credit note is not on the payer's invoice.
SELECT x.*, c.created_at AS charged_at FROM (
    (
        SELECT e.posting_id, coalesce(r.request_id, p.cause) AS request_id, r.id IS NOT NULL AS refund,
            '' AS correction_id, NULL::text AS units, 0::bigint AS cost, NULL::text AS units_before, 0::bigint AS cost_before,
            sum(e.amount)::bigint AS amount
        FROM accounts a JOIN org_entries e ON e.account_id = a.id JOIN postings p ON p.id = e.posting_id
        LEFT JOIN call_refunds r ON r.id = p.cause AND p.kind = 'call_refund'
        WHERE a.org_id = :org_id AND a.kind = ANY(:kinds::text[]) AND (e.kind = a.kind OR e.kind IS NULL)
            AND e.posting_id > greatest(:after::text, :first::text)
            AND e.posting_id < :until AND p.kind IN ('charge', 'call_refund')
            AND p.created_at >= :start AND p.created_at < :end_
            AND (:earned::boolean OR r.id IS NULL OR NOT EXISTS (SELECT FROM invoices n WHERE n.cause = r.id))
        GROUP BY e.posting_id, r.request_id, p.cause, r.id ORDER BY e.posting_id LIMIT :most
    ) UNION ALL (
        SELECT p.id, k.request_id, false, k.id, k.units::text, k.cost, b.units::text, k.cost - k.cost_change,
            coalesce(m.amount, 0)::bigint
        FROM corrections k JOIN postings p ON p.cause = k.id
        LEFT JOIN LATERAL (
            SELECT units FROM corrections WHERE request_id = k.request_id AND number < k.number
                AND (cost_change <> 0 OR fee_change <> 0) ORDER BY number DESC LIMIT 1
        ) b ON true
        LEFT JOIN LATERAL (
            SELECT sum(e.amount) AS amount FROM org_entries e JOIN accounts a ON a.id = e.account_id
            WHERE e.posting_id = p.id AND a.org_id = :org_id AND a.kind = ANY(:kinds::text[])
        ) m ON true
        WHERE (:earned AND k.publisher_org_id = :org_id OR NOT :earned AND k.org_id = :org_id)
            AND k.created_at >= :start AND k.created_at < :end_ AND k.day IS NOT NULL AND p.id > :after
            AND (:earned OR NOT EXISTS (SELECT FROM invoices n WHERE n.cause = k.id))
        ORDER BY p.id LIMIT :most
    )
) x LEFT JOIN postings c ON c.cause = x.request_id
ORDER BY x.posting_id LIMIT :most;

-- name: change_of(cause)^
-- What a correction or refund changed: as `charges` says it.
SELECT r.request_id, true AS refund, '' AS correction_id, NULL::text AS units, 0::bigint AS cost,
    NULL::text AS units_before, 0::bigint AS cost_before
FROM call_refunds r WHERE r.id = :cause
UNION ALL SELECT k.request_id, false, k.id, k.units::text, k.cost, b.units::text, k.cost - k.cost_change
FROM corrections k LEFT JOIN LATERAL (
    SELECT units FROM corrections WHERE request_id = k.request_id AND number < k.number
        AND (cost_change <> 0 OR fee_change <> 0) ORDER BY number DESC LIMIT 1
) b ON true WHERE k.id = :cause;

-- name: invoice_of_call(org_id, request_id)^
-- The final invoice of the period in which a call first took money.
SELECT i.* FROM invoices i, (
    SELECT min(p.created_at) AS at FROM postings p
    WHERE p.cause = :request_id OR p.cause IN (SELECT id FROM corrections WHERE request_id = :request_id)
) c
WHERE i.org_id = :org_id AND i.kind = 'invoice' AND i.number IS NOT NULL
    AND i.period_start <= c.at AND i.period_end > c.at;

-- name: owed_on_open_invoices(org_id)$
SELECT coalesce(sum(owed), 0)::bigint FROM invoices WHERE org_id = :org_id AND status IN ('draft', 'open');

-- name: get_prices(ids)
SELECT * FROM prices WHERE id = ANY(:ids::text[]);

-- name: model_fees(org_id, start, end_)
-- What was paid within a time for subscriptions to a publisher's models.
SELECT l.model, l.model_id, l.fee_ppm, l.amount FROM invoice_lines l JOIN invoices i ON i.id = l.invoice_id
WHERE l.publisher_org_id = :org_id AND i.status = 'paid' AND i.paid_at >= :start AND i.paid_at < :end_
ORDER BY l.model, l.id;

-- name: invoices_between(after, until)
-- With what their lines say.
SELECT i.id, i.org_id, i.kind, i.status, i.number, i.due, i.prepaid, i.owed, i.period_start, i.period_end,
    l.due AS due_lines, l.prepaid AS prepaid_lines
FROM invoices i CROSS JOIN LATERAL (
    SELECT coalesce(sum(amount) FILTER (WHERE kind IN ('subscription', 'proration')), 0)::bigint AS due,
        coalesce(sum(amount) FILTER (WHERE kind NOT IN ('subscription', 'proration')), 0)::bigint AS prepaid
    FROM invoice_lines WHERE invoice_id = i.id
) l
WHERE i.id >= :after AND i.id < :until;

-- name: calls_of_invoices(after, until, first, last)
-- What calls of the periods of invoices took from wallet and credit, or brought the publisher. `first` and `last` bound
-- the ids of their postings; a correction's has the time of its call, which may be long ago. What has a credit note is on
-- that.
SELECT id, sum(moved)::bigint AS moved FROM (
    SELECT i.id, CASE i.kind WHEN 'invoice' THEN -e.amount ELSE e.amount END AS moved
    FROM invoices i JOIN accounts a ON a.org_id = i.org_id JOIN org_entries e ON e.account_id = a.id
    JOIN postings p ON p.id = e.posting_id
    WHERE i.id >= :after AND i.id < :until AND i.number IS NOT NULL AND e.posting_id > :first AND e.posting_id < :last
        AND p.created_at >= i.period_start AND p.created_at < i.period_end AND (
            i.kind = 'invoice' AND a.kind IN ('customer_wallet', 'promotional_credit') AND (p.kind = 'charge'
                OR p.kind = 'call_refund' AND NOT EXISTS (SELECT FROM invoices n WHERE n.cause = p.cause))
            OR i.kind = 'self_billing' AND a.kind = 'publisher_payable' AND p.kind IN ('charge', 'call_refund', 'invoice')
        )
    UNION ALL
    SELECT i.id, -e.amount FROM invoices i JOIN corrections k ON k.org_id = i.org_id
    JOIN postings p ON p.cause = k.id JOIN org_entries e ON e.posting_id = p.id JOIN accounts a ON a.id = e.account_id
    WHERE i.id >= :after AND i.id < :until AND i.number IS NOT NULL AND i.kind = 'invoice' AND k.day IS NOT NULL
        AND k.created_at >= i.period_start AND k.created_at < i.period_end
        AND a.org_id = i.org_id AND a.kind IN ('customer_wallet', 'promotional_credit')
        AND NOT EXISTS (SELECT FROM invoices n WHERE n.cause = k.id)
    UNION ALL
    SELECT i.id, e.amount FROM invoices i JOIN corrections k ON k.publisher_org_id = i.org_id
    JOIN postings p ON p.cause = k.id JOIN org_entries e ON e.posting_id = p.id JOIN accounts a ON a.id = e.account_id
    WHERE i.id >= :after AND i.id < :until AND i.number IS NOT NULL AND i.kind = 'self_billing' AND k.day IS NOT NULL
        AND k.created_at >= i.period_start AND k.created_at < i.period_end
        AND a.org_id = i.org_id AND a.kind = 'publisher_payable'
) m GROUP BY id;

-- name: wrong_notes(after, until)
-- Credit notes that are not, line by line, what their correction or refund gave back, or not of the call's invoice.
SELECT n.id, n.number, n.cause, n.prepaid, coalesce(l.amount, 0)::bigint AS lines, coalesce(m.moved, 0)::bigint AS moved
FROM invoices n LEFT JOIN invoices i ON i.id = n.corrects
LEFT JOIN call_refunds r ON r.id = n.cause LEFT JOIN corrections k ON k.id = n.cause
LEFT JOIN LATERAL (SELECT sum(amount) AS amount FROM invoice_lines WHERE invoice_id = n.id) l ON true
LEFT JOIN LATERAL (
    SELECT -sum(e.amount) AS moved FROM postings p JOIN entries e ON e.posting_id = p.id
    JOIN accounts a ON a.id = e.account_id
    WHERE p.cause = n.cause AND a.org_id = n.org_id AND a.kind IN ('customer_wallet', 'promotional_credit')
) m ON true
WHERE n.id >= :after AND n.id < :until AND n.kind = 'credit_note' AND n.number IS NOT NULL AND (
    (n.prepaid, n.prepaid, n.due) IS DISTINCT FROM (coalesce(l.amount, 0), coalesce(m.moved, 0), 0)
    OR n.org_id <> coalesce(r.org_id, k.org_id, '') OR i.org_id IS DISTINCT FROM n.org_id OR NOT EXISTS (
        SELECT FROM postings p WHERE p.created_at >= i.period_start AND p.created_at < i.period_end AND (
            p.cause = coalesce(r.request_id, k.request_id)
            OR p.cause IN (SELECT id FROM corrections WHERE request_id = k.request_id))
    )
) LIMIT 100;

-- name: number_gaps()
-- Issuers and years of which numbers are missing or too many.
SELECT n.issuer, n.year, n.last, count(i.id) AS found FROM invoice_numbers n
LEFT JOIN invoices i ON i.number ~ ('^' || n.issuer || '-' || n.year || '-[0-9]+$')
GROUP BY n.issuer, n.year, n.last HAVING count(i.id) <> n.last LIMIT 100;

-- name: put_account(org_id, user_id, provider, ref, ready, schedule, anchor, next_at, now)^
-- The first account stays.
INSERT INTO payout_accounts AS a (org_id, user_id, provider, ref, ready, schedule, anchor, next_at, created_at)
VALUES (:org_id, :user_id, :provider, :ref, :ready, :schedule, :anchor, :next_at, :now)
ON CONFLICT (org_id) DO UPDATE SET ready = excluded.ready, schedule = excluded.schedule, anchor = excluded.anchor,
    next_at = excluded.next_at
RETURNING *;

-- name: get_account(org_id)^
SELECT * FROM payout_accounts WHERE org_id = :org_id;

-- name: lock_account(org_id)^
SELECT * FROM payout_accounts WHERE org_id = :org_id FOR UPDATE;

-- name: due_accounts(now, most)
SELECT * FROM payout_accounts WHERE next_at <= :now ORDER BY next_at LIMIT :most;

-- name: move_account(org_id, ready, next_at)!
UPDATE payout_accounts SET ready = :ready, next_at = :next_at WHERE org_id = :org_id;

-- name: lock_payable(org_id)$
-- What is payable, locked: whoever is posting to it has committed, and nobody does until this transaction ends.
SELECT b.balance FROM balances b JOIN accounts a ON a.id = b.account_id
WHERE a.org_id = :org_id AND a.kind = 'publisher_payable' FOR UPDATE OF b;

-- name: earned(org_id, start, end_, after, until)$
SELECT coalesce(sum(e.amount), 0)::bigint FROM accounts a
JOIN org_entries e ON e.account_id = a.id JOIN postings p ON p.id = e.posting_id
WHERE a.org_id = :org_id AND a.kind = 'publisher_payable' AND e.posting_id > :after AND e.posting_id < :until
    AND e.amount > 0 AND p.kind IN ('charge', 'invoice') AND p.created_at >= :start AND p.created_at < :end_;

-- name: subscriptions_earned(org_id, start, end_, after, until)^
SELECT count(*) AS count, coalesce(sum(e.amount), 0)::bigint AS amount FROM accounts a
JOIN org_entries e ON e.account_id = a.id JOIN postings p ON p.id = e.posting_id
WHERE a.org_id = :org_id AND a.kind = 'publisher_payable' AND e.posting_id > :after AND e.posting_id < :until
    AND e.amount > 0 AND p.kind = 'invoice' AND p.created_at >= :start AND p.created_at < :end_;

-- name: taken_back(org_id)
-- What was taken back or corrected, and is in no payout yet.
SELECT e.posting_id, e.amount FROM accounts a
JOIN org_entries e ON e.account_id = a.id JOIN postings p ON p.id = e.posting_id
LEFT JOIN payout_adjustments x ON x.posting_id = e.posting_id
WHERE a.org_id = :org_id AND a.kind = 'publisher_payable' AND (e.amount < 0 AND p.kind <> 'payout' OR p.kind IN ('correction', 'chargeback_returned'))
    AND x.posting_id IS NULL ORDER BY e.posting_id;

-- name: add_payout(id, org_id, user_id, amount, currency, provider, account_ref, earned_from, earned_until, carried_in, carried_out, now)!
INSERT INTO payouts (id, org_id, user_id, amount, currency, status, provider, account_ref, earned_from, earned_until,
    carried_in, carried_out, next_attempt_at, created_at)
VALUES (:id, :org_id, :user_id, :amount, :currency, 'pending', :provider, :account_ref, :earned_from, :earned_until,
    :carried_in, :carried_out, :now, :now);

-- name: add_adjustments(payout_id, posting_ids)!
INSERT INTO payout_adjustments (posting_id, payout_id) SELECT unnest(:posting_ids::text[]), :payout_id;

-- name: adjusted(payout_id)^
SELECT count(*) AS count, coalesce(sum(e.amount), 0)::bigint AS amount FROM payout_adjustments x
JOIN payouts o ON o.id = x.payout_id JOIN accounts a ON a.org_id = o.org_id AND a.kind = 'publisher_payable'
JOIN org_entries e ON e.posting_id = x.posting_id AND e.account_id = a.id
WHERE x.payout_id = :payout_id;

-- name: last_payout(org_id)^
SELECT * FROM payouts WHERE org_id = :org_id ORDER BY id DESC LIMIT 1;

-- name: get_payout(id)^
SELECT * FROM payouts WHERE id = :id;

-- name: lock_payout(id)^
SELECT * FROM payouts WHERE id = :id FOR UPDATE;

-- name: list_payouts(org_id, before, most)
SELECT * FROM payouts WHERE org_id = :org_id AND (:before::text IS NULL OR id < :before) ORDER BY id DESC LIMIT :most;

-- name: claim_payouts(now, until, most)
-- Whoever claims has until then; after a death the rows are due again.
UPDATE payouts SET attempts = attempts + 1, next_attempt_at = :until WHERE id IN (
    SELECT id FROM payouts WHERE next_attempt_at <= :now ORDER BY next_attempt_at LIMIT :most FOR UPDATE SKIP LOCKED
) RETURNING *;

-- name: put_off_payout(id, at)!
UPDATE payouts SET next_attempt_at = :at WHERE id = :id AND next_attempt_at IS NOT NULL;

-- name: settle_payout(id, status, provider_ref, failure_code, now)^
UPDATE payouts SET status = :status, provider_ref = :provider_ref, failure_code = :failure_code, next_attempt_at = NULL,
    settled_at = :now
WHERE id = :id RETURNING *;

-- name: paid_out(org_id)$
SELECT coalesce(sum(amount), 0)::bigint FROM payouts WHERE org_id = :org_id AND status <> 'failed';

-- name: add_payout_lines(payout_id, kinds, models, counts, amounts)!
INSERT INTO payout_lines (payout_id, position, kind, model, count, amount)
SELECT :payout_id, n, k, m, c, a
FROM unnest(:kinds::text[], :models::text[], :counts::bigint[], :amounts::bigint[]) WITH ORDINALITY AS t (k, m, c, a, n)
ON CONFLICT DO NOTHING;

-- name: get_payout_lines(payout_id)
SELECT * FROM payout_lines WHERE payout_id = :payout_id ORDER BY position;

-- name: add_call_refund(id, request_id, org_id, publisher_org_id, amount, key_id, model_id, day, reason, now)^
INSERT INTO call_refunds (id, request_id, org_id, publisher_org_id, amount, key_id, model_id, day, reason, created_at)
VALUES (:id, :request_id, :org_id, :publisher_org_id, :amount, :key_id, :model_id, :day, :reason, :now)
ON CONFLICT (request_id) DO NOTHING RETURNING *;

-- name: get_call_refund(request_id)^
SELECT * FROM call_refunds WHERE request_id = :request_id;

-- name: is_corrected(request_id)$
SELECT EXISTS (SELECT FROM corrections WHERE request_id = :request_id);

-- name: payouts_between(after, until)
-- With what their lines say, which are written once their calls are read.
SELECT o.id, o.org_id, o.status, o.amount, coalesce(l.total, o.amount)::bigint AS lines
FROM payouts o LEFT JOIN LATERAL (SELECT sum(amount) AS total FROM payout_lines WHERE payout_id = o.id) l ON true
WHERE o.id >= :after AND o.id < :until;

-- name: call_refunds_between(after, until)
SELECT id, request_id, amount FROM call_refunds WHERE id >= :after AND id < :until ORDER BY id;

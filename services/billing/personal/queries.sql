-- name: export_wallets(org_ids)
SELECT jsonb_build_object('org_id', a.org_id, 'account_id', a.id, 'kind', a.kind, 'currency', a.currency,
    'balance_nanos', coalesce(b.balance, 0))::text AS line
FROM accounts a LEFT JOIN balances b ON b.account_id = a.id WHERE a.org_id = ANY(:org_ids::text[]) ORDER BY a.id;

-- name: export_ledger_entries(org_ids)
SELECT jsonb_build_object('posting_id', p.id, 'cause', p.cause, 'kind', p.kind, 'account_id', a.id, 'account', a.kind,
    'amount_nanos', e.amount, 'created_at', p.created_at)::text AS line
FROM accounts a JOIN org_entries e ON e.account_id = a.id JOIN postings p ON p.id = e.posting_id
WHERE a.org_id = ANY(:org_ids::text[]) ORDER BY e.posting_id;

-- name: export_transactions(org_ids)
SELECT to_jsonb(t)::text AS line FROM transactions t WHERE t.org_id = ANY(:org_ids::text[]) ORDER BY t.id;

-- name: export_payments(org_ids)
SELECT (to_jsonb(p) - ARRAY['client_secret', 'next_attempt_at'])::text AS line FROM payments p
WHERE p.org_id = ANY(:org_ids::text[]) ORDER BY p.id;

-- name: export_refunds_and_disputes(org_ids)
SELECT (to_jsonb(r) - ARRAY['next_attempt_at'])::text AS line FROM reversals r WHERE r.org_id = ANY(:org_ids::text[])
ORDER BY r.id;

-- name: export_payment_methods(org_ids)
SELECT to_jsonb(m)::text AS line FROM payment_methods m WHERE m.org_id = ANY(:org_ids::text[]) ORDER BY m.id;

-- name: export_auto_top_ups(org_ids)
SELECT to_jsonb(t)::text AS line FROM auto_top_ups t WHERE t.org_id = ANY(:org_ids::text[]) ORDER BY t.org_id;

-- name: export_invoices(org_ids)
SELECT (to_jsonb(i) || jsonb_build_object('lines', (
    SELECT coalesce(jsonb_agg(to_jsonb(l) - ARRAY['invoice_id'] ORDER BY l.position), '[]')
    FROM invoice_lines l WHERE l.invoice_id = i.id
)))::text AS line FROM invoices i WHERE i.org_id = ANY(:org_ids::text[]) ORDER BY i.id;

-- name: export_subscriptions(org_ids)
SELECT to_jsonb(s)::text AS line FROM subscriptions s WHERE s.org_id = ANY(:org_ids::text[]) ORDER BY s.id;

-- name: export_budgets(org_ids)
SELECT to_jsonb(b)::text AS line FROM budgets b WHERE b.org_id = ANY(:org_ids::text[]) ORDER BY b.id;

-- name: export_credit_grants(org_ids)
SELECT to_jsonb(g)::text AS line FROM credit_grants g WHERE g.org_id = ANY(:org_ids::text[]) ORDER BY g.id;

-- name: export_payouts(org_ids)
SELECT (to_jsonb(p) - ARRAY['next_attempt_at'])::text AS line FROM payouts p WHERE p.org_id = ANY(:org_ids::text[])
ORDER BY p.id;

-- name: export_payout_accounts(org_ids)
SELECT to_jsonb(a)::text AS line FROM payout_accounts a WHERE a.org_id = ANY(:org_ids::text[])
ORDER BY a.org_id;

-- name: export_prices(handles)
SELECT to_jsonb(p)::text AS line FROM prices p WHERE split_part(p.model, '/', 1) = ANY(:handles::text[]) ORDER BY p.id;

-- name: export_model_offers(org_ids)
SELECT to_jsonb(o)::text AS line FROM model_offers o WHERE o.publisher_org_id = ANY(:org_ids::text[]) ORDER BY o.model_id;

-- name: export_discounts(org_ids)
-- Those they give and those they have.
SELECT to_jsonb(d)::text AS line FROM discounts d
WHERE d.publisher_org_id = ANY(:org_ids::text[]) OR d.org_id = ANY(:org_ids::text[])
ORDER BY d.publisher_org_id, d.org_id, d.model_id;

-- name: export_losses(org_ids)
-- Of disputes of theirs, and their shares of others'.
SELECT to_jsonb(l)::text AS line FROM losses l WHERE l.org_id = ANY(:org_ids::text[])
UNION ALL SELECT to_jsonb(s)::text FROM loss_shares s WHERE s.publisher_org_id = ANY(:org_ids::text[]);

-- name: export_corrections_and_refunds_of_calls(org_ids)
-- Those of their calls, and what they gave back to others.
SELECT (to_jsonb(k) - ARRAY['user_id'])::text AS line FROM corrections k WHERE k.org_id = ANY(:org_ids::text[])
UNION ALL SELECT to_jsonb(f)::text FROM call_refunds f WHERE f.org_id = ANY(:org_ids::text[])
UNION ALL SELECT (to_jsonb(f) - ARRAY['org_id', 'key_id'])::text FROM call_refunds f
WHERE f.publisher_org_id = ANY(:org_ids::text[]) AND f.org_id <> ALL(:org_ids::text[]);

-- name: closing(org_ids)^
-- What they hold and owe, nanos, and what is under way.
SELECT
    (SELECT coalesce(sum(greatest(b.balance, 0)), 0)::bigint FROM wallets w JOIN balances b ON b.account_id = w.account_id
        WHERE w.org_id = ANY(:org_ids::text[])) AS balance,
    (SELECT coalesce(sum(greatest(b.balance, 0)), 0)::bigint FROM accounts a JOIN balances b ON b.account_id = a.id
        WHERE a.org_id = ANY(:org_ids::text[]) AND a.kind = 'publisher_payable') AS payable,
    (SELECT coalesce(sum(greatest(-b.balance, 0)), 0)::bigint FROM accounts a JOIN balances b ON b.account_id = a.id
        WHERE a.org_id = ANY(:org_ids::text[]) AND a.kind IN ('customer_wallet', 'publisher_payable'))
        + (SELECT coalesce(sum(due), 0)::bigint FROM invoices
            WHERE org_id = ANY(:org_ids::text[]) AND status = 'open' AND due > 0) AS owed,
    ((SELECT count(*) FROM payments WHERE org_id = ANY(:org_ids::text[]) AND next_attempt_at IS NOT NULL)
        + (SELECT count(*) FROM reversals WHERE org_id = ANY(:org_ids::text[]) AND status = 'pending')
        + (SELECT count(*) FROM payouts WHERE org_id = ANY(:org_ids::text[]) AND status = 'pending'))::int AS pending;

-- name: unsettled(org_ids)^
-- What may still move money of theirs.
SELECT
    (SELECT count(*) FROM leases WHERE org_id = ANY(:org_ids::text[]) AND NOT closed) AS leases,
    (SELECT count(*) FROM invoices WHERE org_id = ANY(:org_ids::text[]) AND status = 'draft') AS drafts,
    (SELECT count(*) FROM credit_grants WHERE org_id = ANY(:org_ids::text[]) AND remaining > 0) AS grants,
    (SELECT count(*) FROM payment_methods WHERE org_id = ANY(:org_ids::text[]) AND forgotten_at IS NULL) AS cards,
    (SELECT count(*) FROM payments WHERE org_id = ANY(:org_ids::text[]) AND next_attempt_at IS NOT NULL) AS payments;

-- name: list_customers(org_ids, provider)
SELECT ref FROM payment_customers WHERE org_id = ANY(:org_ids::text[]) AND provider = :provider;

-- name: end_grants(org_ids, now)!
UPDATE credit_grants SET expires_at = :now
WHERE org_id = ANY(:org_ids::text[]) AND remaining > 0 AND (expires_at IS NULL OR expires_at > :now);

-- name: detach_cards(org_ids, now)!
UPDATE payment_methods SET detached_at = coalesce(detached_at, :now), is_default = false
WHERE org_id = ANY(:org_ids::text[]);

-- name: erase_auto_top_ups(org_ids)!
DELETE FROM auto_top_ups WHERE org_id = ANY(:org_ids::text[]);

-- name: erase_offers(org_ids)!
DELETE FROM model_offers WHERE publisher_org_id = ANY(:org_ids::text[]);

-- name: erase_discounts(org_ids)!
DELETE FROM discounts WHERE publisher_org_id = ANY(:org_ids::text[]) OR org_id = ANY(:org_ids::text[]);

-- name: erase_due_prices(handles)!
DELETE FROM due_prices WHERE split_part(model, '/', 1) = ANY(:handles::text[]);

-- name: end_subscriptions_to_models(org_ids)!
-- Others' subscriptions to models that go: what they paid for runs to its end.
UPDATE subscriptions SET cancel_at_period_end = true
WHERE publisher_org_id = ANY(:org_ids::text[]) AND status <> 'canceled' AND model_id <> '';

-- name: erase_budgets(org_ids)!
DELETE FROM budgets WHERE org_id = ANY(:org_ids::text[]);

-- name: erase_payout_accounts(org_ids)!
DELETE FROM payout_accounts WHERE org_id = ANY(:org_ids::text[]);

-- name: erase_customers(org_ids)!
DELETE FROM payment_customers WHERE org_id = ANY(:org_ids::text[]);

-- name: erase_cards(org_ids)!
UPDATE payment_methods SET brand = '', last4 = '', exp_month = 0, exp_year = 0 WHERE org_id = ANY(:org_ids::text[]);

-- name: erase_secrets_of_payments(org_ids)!
UPDATE payments SET client_secret = NULL WHERE org_id = ANY(:org_ids::text[]) AND client_secret IS NOT NULL;

-- name: erase_reasons(org_ids)!
UPDATE reversals SET reason = '' WHERE org_id = ANY(:org_ids::text[]) AND reason <> '';

-- name: erase_reasons_of_refunds(org_ids)!
-- Of calls of theirs, and of what they gave back to others.
UPDATE call_refunds SET reason = ''
WHERE (org_id = ANY(:org_ids::text[]) OR publisher_org_id = ANY(:org_ids::text[])) AND reason <> '';

-- name: erase_reasons_of_grants(org_ids)!
UPDATE credit_grants SET reason = '' WHERE org_id = ANY(:org_ids::text[]) AND reason <> '';

-- name: rename_prices(handles, pseudonyms)!
UPDATE prices r SET model = t.new || substr(r.model, length(t.old) + 1)
FROM unnest(:handles::text[], :pseudonyms::text[]) AS t (old, new) WHERE starts_with(r.model, t.old || '/');

-- name: rename_lines(handles, pseudonyms)!
UPDATE invoice_lines r SET model = t.new || substr(r.model, length(t.old) + 1),
    description = replace(r.description, t.old || '/', t.new || '/')
FROM unnest(:handles::text[], :pseudonyms::text[]) AS t (old, new) WHERE starts_with(r.model, t.old || '/');

-- name: rename_payout_lines(handles, pseudonyms)!
UPDATE payout_lines r SET model = t.new || substr(r.model, length(t.old) + 1)
FROM unnest(:handles::text[], :pseudonyms::text[]) AS t (old, new) WHERE starts_with(r.model, t.old || '/');

-- name: rename_subscriptions(handles, pseudonyms)!
UPDATE subscriptions r SET model = t.new || substr(r.model, length(t.old) + 1)
FROM unnest(:handles::text[], :pseudonyms::text[]) AS t (old, new) WHERE starts_with(r.model, t.old || '/');

-- name: rename_budgets(handles, pseudonyms)!
-- Of others, for models that are gone.
UPDATE budgets r SET model = t.new || substr(r.model, length(t.old) + 1)
FROM unnest(:handles::text[], :pseudonyms::text[]) AS t (old, new) WHERE starts_with(r.model, t.old || '/');

-- name: add_payment(id, org_id, user_id, amount, currency, purpose, subject, provider, method_ref, now)$
-- Nothing when this was begun before, or when an automatic top-up of the organisation is under way.
INSERT INTO payments (id, org_id, user_id, amount, currency, purpose, subject, status, provider, method_ref,
    next_attempt_at, created_at)
VALUES (:id, :org_id, :user_id, :amount, :currency, :purpose, :subject, 'pending', :provider, :method_ref, :now, :now)
ON CONFLICT DO NOTHING RETURNING id;

-- name: find_payment(purpose, subject)^
SELECT * FROM payments WHERE purpose = :purpose AND subject = :subject;

-- name: get_payment(id)^
SELECT p.*, (
    SELECT coalesce(sum(r.amount), 0)::bigint FROM reversals r WHERE r.payment_id = p.id AND r.status <> 'returned'
) AS reversed
FROM payments p WHERE p.id = :id;

-- name: payment_of_ref(provider_ref)^
SELECT * FROM payments WHERE provider_ref = :provider_ref;

-- name: lock_payment(id)^
SELECT * FROM payments WHERE id = :id FOR UPDATE;

-- name: list_payments(org_id, before, most)
SELECT p.*, (
    SELECT coalesce(sum(r.amount), 0)::bigint FROM reversals r WHERE r.payment_id = p.id AND r.status <> 'returned'
) AS reversed
FROM payments p WHERE p.org_id = :org_id AND (:before::text IS NULL OR p.id < :before)
ORDER BY p.id DESC LIMIT :most;

-- name: claim_payments(now, until, most)
-- Whoever claims has until then; after a death the rows are due again.
UPDATE payments SET attempts = attempts + 1, next_attempt_at = :until,
    status = CASE status WHEN 'pending' THEN 'processing' ELSE status END
WHERE id IN (
    SELECT id FROM payments WHERE next_attempt_at <= :now ORDER BY next_attempt_at LIMIT :most FOR UPDATE SKIP LOCKED
)
RETURNING *;

-- name: open_payment(id, provider_ref, method_ref)^
-- The first name that is stored is the one that is confirmed.
UPDATE payments SET provider_ref = coalesce(provider_ref, :provider_ref), method_ref = coalesce(method_ref, :method_ref)
WHERE id = :id RETURNING *;

-- name: put_off_payment(id, status, client_secret, at)!
UPDATE payments SET status = :status, client_secret = :client_secret, next_attempt_at = :at
WHERE id = :id AND next_attempt_at IS NOT NULL;

-- name: settle_payment(id, status, failure_code, now)!
UPDATE payments SET status = :status, failure_code = :failure_code, client_secret = NULL, next_attempt_at = NULL,
    settled_at = :now
WHERE id = :id;

-- name: add_payment_transaction(id, user_id, org_id, amount, currency, type, provider_ref, cause, now)!
INSERT INTO transactions (id, user_id, org_id, amount, currency, type, status, stripe_payment_id, cause, created_at)
VALUES (:id, :user_id, :org_id, :amount, :currency, :type, 'succeeded', :provider_ref, :cause, :now)
ON CONFLICT (cause) DO NOTHING;

-- name: add_reversal(id, kind, payment_id, org_id, amount, taken, reason, subject, provider_ref, next_attempt_at, now)$
-- Nothing when there is one of this subject.
INSERT INTO reversals (id, kind, payment_id, org_id, amount, taken, status, reason, subject, provider_ref,
    next_attempt_at, created_at)
VALUES (:id, :kind, :payment_id, :org_id, :amount, :taken, 'pending', :reason, :subject, :provider_ref,
    :next_attempt_at, :now)
ON CONFLICT DO NOTHING RETURNING id;

-- name: find_reversal(subject)^
SELECT * FROM reversals WHERE subject = :subject;

-- name: reversal_of(id, provider_ref)^
-- By its own id, which the provider was told, or by the provider's name for it.
SELECT * FROM reversals WHERE id = :id OR provider_ref = :provider_ref ORDER BY id = :id DESC LIMIT 1;

-- name: lock_reversal(id)^
SELECT * FROM reversals WHERE id = :id FOR UPDATE;

-- name: reversed(payment_id)$
SELECT coalesce(sum(amount), 0)::bigint FROM reversals WHERE payment_id = :payment_id AND status <> 'returned';

-- name: claim_refunds(now, until, most)
UPDATE reversals SET attempts = attempts + 1, next_attempt_at = :until WHERE id IN (
    SELECT id FROM reversals WHERE next_attempt_at <= :now ORDER BY next_attempt_at LIMIT :most FOR UPDATE SKIP LOCKED
)
RETURNING *;

-- name: put_off_refund(id, provider_ref, at)!
UPDATE reversals SET provider_ref = coalesce(provider_ref, :provider_ref), next_attempt_at = :at
WHERE id = :id AND status = 'pending';

-- name: settle_reversal(id, status, provider_ref, failure_code, now)!
UPDATE reversals SET status = :status, provider_ref = coalesce(provider_ref, :provider_ref),
    failure_code = :failure_code, next_attempt_at = NULL, settled_at = :now
WHERE id = :id;

-- name: reversals_between(after, until)
-- Begun in a time, by the digits of their ids.
SELECT id, kind, org_id, status, amount, taken FROM reversals
WHERE split_part(id, '_', 2) COLLATE "C" >= :after AND split_part(id, '_', 2) COLLATE "C" < :until;

-- name: add_event(id, type, object_ref, created_at, now)$
-- True when it is new.
INSERT INTO provider_events (id, type, object_ref, created_at, received_at, next_attempt_at)
VALUES (:id, :type, :object_ref, :created_at, :now, :now) ON CONFLICT DO NOTHING RETURNING true;

-- name: claim_events(now, until, most)
UPDATE provider_events SET attempts = attempts + 1, next_attempt_at = :until WHERE id IN (
    SELECT id FROM provider_events WHERE next_attempt_at <= :now ORDER BY next_attempt_at LIMIT :most
    FOR UPDATE SKIP LOCKED
)
RETURNING *;

-- name: handled_event(id, now)!
UPDATE provider_events SET handled_at = :now, next_attempt_at = NULL WHERE id = :id;

-- name: put_off_event(id, at)!
UPDATE provider_events SET next_attempt_at = :at WHERE id = :id AND handled_at IS NULL;

-- name: forget_events(before)!
DELETE FROM provider_events WHERE handled_at < :before;

-- name: get_cursor(provider)$
SELECT through FROM provider_cursors WHERE provider = :provider;

-- name: set_cursor(provider, through)!
INSERT INTO provider_cursors (provider, through) VALUES (:provider, :through)
ON CONFLICT (provider) DO UPDATE SET through = excluded.through;

-- name: customer_org(provider, ref)$
SELECT org_id FROM payment_customers WHERE provider = :provider AND ref = :ref;

-- name: method_of_ref(provider, ref)^
SELECT * FROM payment_methods WHERE provider = :provider AND ref = :ref AND detached_at IS NULL;

-- name: get_auto_top_up(org_id)^
SELECT * FROM auto_top_ups WHERE org_id = :org_id;

-- name: set_auto_top_up(org_id, enabled, threshold, amount, now)^
-- Whoever sets it begins anew.
INSERT INTO auto_top_ups (org_id, enabled, threshold, amount, next_attempt_at, updated_at)
VALUES (:org_id, :enabled, :threshold, :amount, :now, :now)
ON CONFLICT (org_id) DO UPDATE SET enabled = excluded.enabled, threshold = excluded.threshold,
    amount = excluded.amount, failures = 0, next_attempt_at = excluded.next_attempt_at, updated_at = excluded.updated_at
RETURNING *;

-- name: due_auto_top_ups(now, most)
-- Organisations with less than their threshold free, and none under way.
SELECT t.* FROM auto_top_ups t JOIN wallets w ON w.org_id = t.org_id LEFT JOIN balances b ON b.account_id = w.account_id
WHERE t.enabled AND t.next_attempt_at <= :now AND coalesce(b.balance, 0) - w.reserved < t.threshold AND NOT EXISTS (
    SELECT FROM payments p
    WHERE p.org_id = t.org_id AND p.purpose = 'auto_top_up' AND p.next_attempt_at IS NOT NULL
)
ORDER BY t.org_id LIMIT :most;

-- name: auto_top_up_succeeded(org_id)!
UPDATE auto_top_ups SET failures = 0 WHERE org_id = :org_id;

-- name: auto_top_up_failed(org_id, next_attempt_at, most)$
-- Whether it is turned off by this.
UPDATE auto_top_ups SET failures = failures + 1, next_attempt_at = :next_attempt_at,
    enabled = enabled AND failures + 1 < :most
WHERE org_id = :org_id RETURNING NOT enabled AND failures = :most;

-- name: get_customer(org_id, provider)$
SELECT ref FROM payment_customers WHERE org_id = :org_id AND provider = :provider;

-- name: add_customer(org_id, provider, ref, now)$
-- The first one stays.
INSERT INTO payment_customers AS c (org_id, provider, ref, created_at) VALUES (:org_id, :provider, :ref, :now)
ON CONFLICT (org_id, provider) DO UPDATE SET ref = c.ref RETURNING ref;

-- name: lock_customer(org_id, provider)$
SELECT ref FROM payment_customers WHERE org_id = :org_id AND provider = :provider FOR UPDATE;

-- name: add_method(id, org_id, provider, ref, brand, last4, exp_month, exp_year, now)^
-- A card that comes again stays as it is. The organisation's first card is its default.
INSERT INTO payment_methods AS m (id, org_id, provider, ref, brand, last4, exp_month, exp_year, is_default, created_at)
SELECT :id, :org_id, :provider, :ref, :brand, :last4, :exp_month, :exp_year, NOT EXISTS (
    SELECT FROM payment_methods d WHERE d.org_id = :org_id AND d.provider = :provider AND d.is_default
), :now
ON CONFLICT (provider, ref) DO UPDATE SET ref = m.ref RETURNING *;

-- name: get_method(id, org_id, provider)^
SELECT * FROM payment_methods
WHERE id = :id AND org_id = :org_id AND provider = :provider AND detached_at IS NULL;

-- name: default_method(org_id, provider)^
SELECT * FROM payment_methods WHERE org_id = :org_id AND provider = :provider AND is_default;

-- name: list_methods(org_id, provider, before, most)
SELECT * FROM payment_methods WHERE org_id = :org_id AND provider = :provider AND detached_at IS NULL
    AND (:before::text IS NULL OR id < :before)
ORDER BY id DESC LIMIT :most;

-- name: drop_default(org_id, provider)!
UPDATE payment_methods SET is_default = false WHERE org_id = :org_id AND provider = :provider AND is_default;

-- name: set_default(id)^
UPDATE payment_methods SET is_default = true WHERE id = :id AND detached_at IS NULL RETURNING *;

-- name: detach_method(id, now)!
UPDATE payment_methods SET is_default = false, detached_at = coalesce(detached_at, :now) WHERE id = :id;

-- name: newest_method(org_id, provider)$
SELECT id FROM payment_methods WHERE org_id = :org_id AND provider = :provider AND detached_at IS NULL
ORDER BY id DESC LIMIT 1;

-- name: unforgotten_methods(provider, most)
SELECT id, ref FROM payment_methods WHERE provider = :provider AND detached_at IS NOT NULL AND forgotten_at IS NULL
ORDER BY detached_at LIMIT :most;

-- name: forget_method(id, now)!
UPDATE payment_methods SET forgotten_at = :now WHERE id = :id;

-- name: payments_between(after, until)
SELECT id, org_id, status, amount FROM payments WHERE id >= :after AND id < :until;

-- name: add_sandbox_object(id, key, kind, parent, status, cents, code, method)^
-- What was made under this key, now or before.
INSERT INTO sandbox_objects AS o (id, key, kind, parent, status, cents, code, method)
VALUES (:id, :key, :kind, :parent, :status, :cents, :code, :method)
ON CONFLICT (key) DO UPDATE SET key = o.key RETURNING *;

-- name: lock_sandbox_object(id)^
SELECT * FROM sandbox_objects WHERE id = :id FOR UPDATE;

-- name: end_sandbox_object(id, status, code)^
UPDATE sandbox_objects SET status = :status, code = :code WHERE id = :id RETURNING *;

-- name: list_sandbox_objects(parent, kind)
SELECT * FROM sandbox_objects WHERE parent = :parent AND kind = :kind ORDER BY id;

-- name: sandbox_objects_between(kind, after, until)
SELECT * FROM sandbox_objects WHERE kind = :kind AND id >= :after AND id < :until ORDER BY id;

-- name: owned_between(provider, after, until)
-- Everything of the books that the provider has its own name for, begun in a time by the digits of its id.
SELECT * FROM owned WHERE provider = :provider AND digits >= :after AND digits < :until;

-- name: owned_of(provider, refs, ids)
-- By the provider's names, or by their own while what the provider said is not written down.
SELECT * FROM owned WHERE provider = :provider AND ref = ANY(:refs::text[])
UNION ALL SELECT * FROM owned WHERE provider = :provider AND id = ANY(:ids::text[]) AND status = 'pending';

-- name: owned_by_id(id)
SELECT * FROM owned WHERE id = :id;

-- name: untold(refs)
-- Of names that the books do not know, those that they are about to hear of: what the provider tells is stored, and not
-- handled yet.
SELECT object_ref FROM provider_events WHERE object_ref = ANY(:refs::text[]) AND next_attempt_at IS NOT NULL;

-- name: put_budget(id, org_id, name, key_id, model_id, model, period, limit_nanos, notify_only, thresholds, now)!
INSERT INTO budgets (id, org_id, name, key_id, model_id, model, period, limit_nanos, notify_only, thresholds, created_at)
VALUES (:id, :org_id, :name, :key_id, :model_id, :model, :period, :limit_nanos, :notify_only, :thresholds, :now)
ON CONFLICT (org_id, name) DO UPDATE SET key_id = excluded.key_id, model_id = excluded.model_id, model = excluded.model,
    period = excluded.period, limit_nanos = excluded.limit_nanos, notify_only = excluded.notify_only,
    thresholds = excluded.thresholds;

-- name: delete_budget(org_id, name)
DELETE FROM budgets WHERE org_id = :org_id AND name = :name RETURNING id;

-- name: states(org_ids, day)
-- Budgets with what the period of a day has spent, and what is held in leases made in it: from a lease of no key or
-- model any call may spend.
SELECT b.*, s.spent, l.reserved FROM budgets b
CROSS JOIN LATERAL (
    SELECT CASE b.period WHEN 2 THEN date_trunc('month', :day::date::timestamp)::date ELSE :day::date END AS first
) p
CROSS JOIN LATERAL (
    SELECT CASE b.period WHEN 2 THEN (p.first + interval '1 month')::date ELSE p.first + 1 END AS next
) q
CROSS JOIN LATERAL (
    SELECT coalesce(sum(s.spent), 0)::bigint AS spent FROM spending s
    WHERE s.org_id = b.org_id AND s.day >= p.first AND s.day < q.next
        AND (b.key_id = '' OR s.key_id = b.key_id) AND (b.model_id = '' OR s.model_id = b.model_id)
) s
CROSS JOIN LATERAL (
    SELECT coalesce(sum(l.granted - l.posted), 0)::bigint AS reserved FROM leases l
    WHERE l.org_id = b.org_id AND NOT l.closed AND l.day >= p.first AND l.day < q.next
        AND (b.key_id = '' OR l.key_id IN ('', b.key_id)) AND (b.model_id = '' OR l.model_id IN ('', b.model_id))
) l
WHERE b.org_id = ANY(:org_ids::text[]) ORDER BY b.org_id, b.name;

-- name: count(org_ids, days, key_ids, model_ids, amounts)
-- What has budgets with thresholds is worth a look.
INSERT INTO spending AS s (org_id, day, key_id, model_id, spent)
SELECT * FROM unnest(:org_ids::text[], :days::date[], :key_ids::text[], :model_ids::text[], :amounts::bigint[])
ON CONFLICT (org_id, day, key_id, model_id) DO UPDATE SET spent = s.spent + excluded.spent
RETURNING s.org_id, s.day, EXISTS (
    SELECT FROM budgets b WHERE b.org_id = s.org_id AND cardinality(b.thresholds) > 0
) AS watched;

-- name: add_notices(budget_ids, starts, limits, percents, now)
-- Those that were not told before.
INSERT INTO budget_notices (budget_id, period_start, limit_nanos, percent, reached_at)
SELECT b, p, l, n, :now FROM unnest(:budget_ids::text[], :starts::date[], :limits::bigint[], :percents::smallint[])
    AS t (b, p, l, n)
ON CONFLICT DO NOTHING RETURNING budget_id, period_start, percent;

-- name: spending(since)
SELECT s.org_id, s.day, s.key_id, s.model_id, s.spent FROM spending s
WHERE s.day >= :since;

-- name: known_since()$
SELECT since FROM spending_known;

-- name: changes(since)
-- What corrections and refunds changed of what calls cost.
SELECT org_id, day, key_id, model_id, sum(change)::bigint AS change FROM (
    SELECT org_id, day, key_id, model_id, cost_change AS change FROM corrections WHERE day >= :since
    UNION ALL SELECT org_id, day, key_id, model_id, -amount FROM call_refunds WHERE day >= :since
) c GROUP BY org_id, day, key_id, model_id;

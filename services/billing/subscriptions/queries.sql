-- name: list_plans(after_price, after_id, most)
SELECT * FROM plans WHERE public AND (monthly_nanos, id) > (:after_price::bigint, :after_id::text)
ORDER BY monthly_nanos, id LIMIT :most;

-- name: get_plan(id)^
SELECT * FROM plans WHERE id = :id;

-- name: add_subscription(id, user_id, org_id, plan_id, status, price, fee_ppm, discount_ppm, model_id, model, publisher_org_id, anchor, start, end_, trial_end, next_at, now)^
-- Nothing when the organisation has one.
INSERT INTO subscriptions (id, user_id, org_id, plan_id, status, price, fee_ppm, discount_ppm, model_id, model, publisher_org_id,
    anchor, current_period_start, current_period_end, trial_end, next_at, created_at)
VALUES (:id, :user_id, :org_id, :plan_id, :status, :price, :fee_ppm, :discount_ppm, :model_id, :model, :publisher_org_id, :anchor,
    :start, :end_, :trial_end, :next_at, :now)
ON CONFLICT DO NOTHING RETURNING *;

-- name: get_subscriptions(org_id)
-- Those that have not ended, the plan's first.
SELECT * FROM subscriptions WHERE org_id = :org_id AND status <> 'canceled' ORDER BY model_id, id;

-- name: lock_subscriptions(org_id)
SELECT * FROM subscriptions WHERE org_id = :org_id AND status <> 'canceled' ORDER BY model_id, id FOR UPDATE;

-- name: had_trial(org_id)$
SELECT EXISTS (SELECT FROM subscriptions WHERE org_id = :org_id AND trial_end IS NOT NULL);

-- name: due_organisations(now, most)
SELECT org_id FROM subscriptions WHERE next_at <= :now ORDER BY next_at LIMIT :most;

-- name: update_subscription(id, plan_id, status, price, fee_ppm, start, end_, trial_end, next_at, cancel, canceled_at)^
UPDATE subscriptions SET plan_id = :plan_id, status = :status, price = :price, fee_ppm = :fee_ppm,
    current_period_start = :start, current_period_end = :end_, trial_end = :trial_end, next_at = :next_at,
    cancel_at_period_end = :cancel, canceled_at = :canceled_at
WHERE id = :id RETURNING *;

-- name: fees_of(org_ids)
-- The platform's share of calls to the models of each, where a plan says one.
SELECT org_id, fee_ppm FROM subscriptions
WHERE org_id = ANY(:org_ids::text[]) AND model_id = '' AND status <> 'canceled' AND fee_ppm IS NOT NULL;

-- name: put_offer(model_id, model, publisher_org_id, price, discount_ppm, now)^
INSERT INTO model_offers (model_id, model, publisher_org_id, price, discount_ppm, updated_at)
VALUES (:model_id, :model, :publisher_org_id, :price, :discount_ppm, :now)
ON CONFLICT (model_id) DO UPDATE SET model = excluded.model, price = excluded.price,
    discount_ppm = excluded.discount_ppm, updated_at = excluded.updated_at
RETURNING *;

-- name: drop_offer(model_id)!
DELETE FROM model_offers WHERE model_id = :model_id;

-- name: get_offer(model_id)^
SELECT * FROM model_offers WHERE model_id = :model_id;

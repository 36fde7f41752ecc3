-- name: add_price(id, model_id, model, currency, components, minimum_nanos, effective_at)!
INSERT INTO prices (id, model_id, model, currency, components, minimum_nanos, effective_at)
VALUES (:id, :model_id, :model, :currency, :components::text::jsonb, :minimum_nanos, :effective_at);

-- name: add_due(price_id, model_id, model, effective_at)!
INSERT INTO due_prices (price_id, model_id, model, effective_at)
VALUES (:price_id, :model_id, :model, :effective_at);

-- name: take_due(now)
DELETE FROM due_prices WHERE effective_at <= :now RETURNING *;

-- name: get_price(model_id, at)^
SELECT * FROM prices WHERE model_id = :model_id AND effective_at <= :at ORDER BY effective_at DESC, id DESC LIMIT 1;

-- name: upcoming_prices(model_id, after, most)
-- Of several for one moment the newest.
SELECT DISTINCT ON (effective_at) * FROM prices WHERE model_id = :model_id AND effective_at > :after
ORDER BY effective_at, id DESC LIMIT :most;

-- name: get_price_by_id(id)^
SELECT * FROM prices WHERE id = :id;

-- name: list_prices(model_id, before_at, before_id, most)
SELECT * FROM (
    SELECT *, lead(effective_at) OVER (ORDER BY effective_at, id) AS end_time FROM prices WHERE model_id = :model_id
) p
WHERE :before_at::timestamptz IS NULL OR (effective_at, id) < (:before_at, :before_id)
ORDER BY effective_at DESC, id DESC LIMIT :most;

-- name: put_discount(publisher_org_id, org_id, model_id, model, discount_ppm, now)^
INSERT INTO discounts AS d (publisher_org_id, org_id, model_id, model, discount_ppm, updated_at)
VALUES (:publisher_org_id, :org_id, :model_id, :model, :discount_ppm, :now)
ON CONFLICT (publisher_org_id, org_id, model_id)
DO UPDATE SET discount_ppm = excluded.discount_ppm, updated_at = excluded.updated_at RETURNING *;

-- name: count_discounts(publisher_org_id)$
SELECT count(*) FROM discounts WHERE publisher_org_id = :publisher_org_id;

-- name: list_discounts(publisher_org_id, after_org_id, after_model_id, most)
SELECT * FROM discounts
WHERE publisher_org_id = :publisher_org_id AND (org_id, model_id) > (:after_org_id, :after_model_id)
ORDER BY org_id, model_id LIMIT :most;

-- name: delete_discount(publisher_org_id, org_id, model)^
DELETE FROM discounts WHERE publisher_org_id = :publisher_org_id AND org_id = :org_id AND model = :model RETURNING *;

-- name: discounts_of(publisher_org_id, model_id)
-- What the publisher gives, a model's own before that of all models; or what is in a subscription to the model, if more.
SELECT org_id, max(discount_ppm) AS discount_ppm FROM (
    (
        SELECT DISTINCT ON (org_id) org_id, discount_ppm FROM discounts
        WHERE model_id = :model_id OR publisher_org_id = :publisher_org_id AND model_id = '' ORDER BY org_id, model_id DESC
    ) UNION ALL (
        SELECT org_id, discount_ppm FROM subscriptions
        WHERE model_id <> '' AND model_id = :model_id AND status <> 'canceled' AND discount_ppm > 0
    )
) d GROUP BY org_id;

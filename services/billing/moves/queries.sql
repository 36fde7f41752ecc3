-- name: lock_moves(model_id)$
-- Of two moves of a model the one that is handled later sees the owner of the later one.
SELECT pg_advisory_xact_lock(hashtext('mercat-moves'), hashtext(:model_id));

-- name: subscribers(model_id)
SELECT DISTINCT org_id FROM subscriptions WHERE model_id = :model_id AND model_id <> '' AND status <> 'canceled';

-- name: move_subscriptions(model_id, model, org_id)!
UPDATE subscriptions SET publisher_org_id = :org_id, model = :model
WHERE model_id = :model_id AND model_id <> '' AND status <> 'canceled';

-- name: move_offer(model_id, model, org_id)!
UPDATE model_offers SET publisher_org_id = :org_id, model = :model WHERE model_id = :model_id;

-- name: drop_discounts(model_id, org_id)!
-- What the new owner has given since the move stands.
DELETE FROM discounts d WHERE d.model_id = :model_id AND d.publisher_org_id <> :org_id AND EXISTS (
    SELECT FROM discounts n WHERE n.model_id = d.model_id AND n.org_id = d.org_id AND n.publisher_org_id = :org_id
);

-- name: move_discounts(model_id, model, org_id)!
UPDATE discounts SET publisher_org_id = :org_id, model = :model WHERE model_id = :model_id;

-- name: rename_due_prices(model_id, model)!
UPDATE due_prices SET model = :model WHERE model_id = :model_id;

-- name: rename_budgets(model_id, model)!
UPDATE budgets SET model = :model WHERE model_id = :model_id AND model_id <> '';

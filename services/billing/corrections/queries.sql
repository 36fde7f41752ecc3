-- name: get_corrections(request_id)
SELECT * FROM corrections WHERE request_id = :request_id ORDER BY number;

-- name: add_correction(id, request_id, number, org_id, publisher_org_id, units, cost, cost_change, fee_change, credit_back, key_id, model_id, day, reason, user_id, now)!
INSERT INTO corrections (id, request_id, number, org_id, publisher_org_id, units, cost, cost_change, fee_change,
    credit_back, key_id, model_id, day, reason, user_id, created_at)
VALUES (:id, :request_id, :number, :org_id, :publisher_org_id, :units::text::jsonb, :cost, :cost_change, :fee_change,
    :credit_back, :key_id, :model_id, :day, :reason, :user_id, :now);

-- name: is_refunded(request_id)$
SELECT EXISTS (SELECT FROM call_refunds WHERE request_id = :request_id);

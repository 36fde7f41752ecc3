-- name: get_own_review(org_id, model, version)^
SELECT * FROM reviews WHERE org_id = :org_id AND model = :model AND version = :version;

-- name: get_review(review_id)^
SELECT * FROM reviews WHERE id = :review_id;

-- name: add_review(id, model, version, org_id, user_id, author, rating, comment, now)^
INSERT INTO reviews (id, model, version, org_id, user_id, author, rating, comment, created_at, updated_at)
VALUES (:id, :model, :version, :org_id, :user_id, :author, :rating, :comment, :now, :now) RETURNING *;

-- name: edit_review(id, user_id, author, rating, comment, now)^
-- What it said becomes an edit, unless it says the same.
WITH before AS (
    INSERT INTO review_edits (review_id, number, rating, comment, written_at)
    SELECT id, edits, rating, comment, updated_at FROM reviews
    WHERE id = :id AND (rating, comment) IS DISTINCT FROM (:rating::smallint, :comment::text) RETURNING review_id
)
UPDATE reviews r SET user_id = :user_id, author = :author, rating = :rating, comment = :comment,
    edits = r.edits + (SELECT count(*) FROM before),
    updated_at = CASE WHEN EXISTS (SELECT FROM before) THEN :now ELSE r.updated_at END
WHERE id = :id RETURNING r.*;

-- name: delete_review(org_id, model, version)!
DELETE FROM reviews WHERE org_id = :org_id AND model = :model AND version = :version;

-- name: list_reviews(model, version, before, most)
SELECT * FROM reviews
WHERE model = :model AND hidden_at IS NULL AND (:version::text = '' OR version = :version) AND id < :before
ORDER BY id DESC LIMIT :most;

-- name: list_edits(review_id, before, most)
SELECT * FROM review_edits WHERE review_id = :review_id AND number < :before ORDER BY number DESC LIMIT :most;

-- name: reply(review_id, reply, now)^
UPDATE reviews SET reply = :reply, replied_at = CASE WHEN :reply = '' THEN NULL ELSE :now::timestamptz END
WHERE id = :review_id RETURNING *;

-- name: add_report(id, review_id, org_id, reason, now)!
INSERT INTO review_reports (id, review_id, org_id, reason, created_at)
VALUES (:id, :review_id, :org_id, :reason, :now) ON CONFLICT (review_id, org_id) DO NOTHING;

-- name: list_reports(after, most)
SELECT r.*, t.id AS report_id, t.reason AS report_reason, t.created_at AS reported_at
FROM review_reports t JOIN reviews r ON r.id = t.review_id
WHERE t.decided_at IS NULL AND t.id > :after ORDER BY t.id LIMIT :most;

-- name: moderate(review_id, hide, reason, now)^
WITH decided AS (
    UPDATE review_reports SET decided_at = :now WHERE review_id = :review_id AND decided_at IS NULL
)
UPDATE reviews SET hidden_at = CASE WHEN :hide::boolean THEN :now::timestamptz END,
    hidden_reason = CASE WHEN :hide THEN :reason ELSE '' END
WHERE id = :review_id RETURNING *;

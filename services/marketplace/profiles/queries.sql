-- name: get_profile(publisher)^
SELECT * FROM publisher_profiles WHERE publisher = :publisher;

-- name: put_profile(org_id, publisher, display_name, skeleton, about, website, now)!
INSERT INTO publisher_profiles (org_id, publisher, display_name, skeleton, about, website, updated_at)
VALUES (:org_id, :publisher, :display_name, :skeleton, :about, :website, :now)
ON CONFLICT (org_id) DO UPDATE SET publisher = excluded.publisher, display_name = excluded.display_name,
    skeleton = excluded.skeleton, about = excluded.about, website = excluded.website, updated_at = excluded.updated_at;

-- name: list_published(publisher, most)
-- Listings, those published last first.
SELECT l.* FROM listings l JOIN (
    SELECT model, max(published_at) AS at FROM publications WHERE publisher = :publisher GROUP BY model
) p ON p.model = l.model ORDER BY p.at DESC, l.model LIMIT :most;

-- name: count_published(publisher)^
SELECT count(*) AS models, coalesce(sum(l.rating_sum), 0)::bigint AS rating_sum,
    coalesce(sum(l.review_count), 0)::bigint AS reviews, coalesce(sum(l.total_requests), 0)::bigint AS requests,
    (SELECT count(*) FROM follows f WHERE f.publisher = :publisher) AS followers
FROM listings l WHERE l.model IN (SELECT model FROM publications WHERE publisher = :publisher);

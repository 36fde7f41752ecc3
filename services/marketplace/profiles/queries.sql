-- name: get_profile(publisher)^
SELECT * FROM publisher_profiles WHERE publisher = :publisher;

-- name: lock_verification(org_id)$
-- Until the transaction ends, nobody else finds out whether the organisation is verified: who does last asks last.
SELECT pg_advisory_xact_lock(hashtext('mercat-profile-' || :org_id::text));

-- name: get_profile_of(org_id)^
SELECT * FROM publisher_profiles WHERE org_id = :org_id;

-- name: list_profiles(after, unknown, most)
-- Of all, or those of which it is unknown whether they are verified.
SELECT org_id, publisher FROM publisher_profiles
WHERE org_id COLLATE "C" > :after AND (NOT :unknown::boolean OR verified IS NULL) ORDER BY org_id COLLATE "C" LIMIT :most;

-- name: set_verified(org_id, verified)$
-- Nothing: it is so already.
UPDATE publisher_profiles SET verified = :verified
WHERE org_id = :org_id AND verified IS DISTINCT FROM :verified RETURNING publisher;

-- name: is_public(publisher)$
-- Whether it has a model in the marketplace, or is verified.
SELECT EXISTS (SELECT FROM publications WHERE publisher = :publisher)
    OR EXISTS (SELECT FROM publisher_profiles WHERE publisher = :publisher AND verified);

-- name: put_profile(org_id, publisher, display_name, skeleton, about, website, now)!
INSERT INTO publisher_profiles (org_id, publisher, display_name, skeleton, about, website, updated_at)
VALUES (:org_id, :publisher, :display_name, :skeleton, :about, :website, :now)
ON CONFLICT (org_id) DO UPDATE SET publisher = excluded.publisher, display_name = excluded.display_name,
    skeleton = excluded.skeleton, about = excluded.about, website = excluded.website, updated_at = excluded.updated_at;

-- name: list_published(publisher, most)
-- Listings, those published last first.
SELECT l.*, q.display_name AS publisher_name, q.verified AS publisher_verified
FROM listings l JOIN (
    SELECT model, max(published_at) AS at FROM publications WHERE publisher = :publisher GROUP BY model
) p ON p.model = l.model
LEFT JOIN publisher_profiles q ON q.publisher = split_part(l.model, '/', 1)
ORDER BY p.at DESC, l.model LIMIT :most;

-- name: count_published(publisher)^
SELECT count(*) AS models, coalesce(sum(l.rating_sum), 0)::bigint AS rating_sum,
    coalesce(sum(l.review_count), 0)::bigint AS reviews, coalesce(sum(l.total_requests), 0)::bigint AS requests,
    (SELECT count(*) FROM follows f WHERE f.publisher = :publisher) AS followers
FROM listings l WHERE l.model IN (SELECT model FROM publications WHERE publisher = :publisher);

-- name: add_model(id, org_id, publisher, name, skeleton, display_name, summary, description, card, category, task, tags, license, homepage, visibility, now)!
INSERT INTO models (id, org_id, publisher, name, skeleton, display_name, summary, description, card, category, task, tags,
    license, homepage, visibility, created_at, updated_at)
VALUES (:id, :org_id, :publisher, :name, :skeleton, :display_name, :summary, :description, :card, :category, :task, :tags,
    :license, :homepage, :visibility, :now, :now);

-- name: take_address(publisher, name, model_id, since)$
-- For a model that has it now: it leads to no other any more that had it before. Nothing: one that was
-- published left it after an instant.
WITH held AS (
    SELECT FROM model_addresses a JOIN models m ON m.id = a.model_id AND m.published_at IS NOT NULL
    WHERE a.publisher = :publisher AND a.name = :name AND m.id <> :model_id AND a.left_at > :since
), gone AS (
    DELETE FROM model_addresses WHERE publisher = :publisher AND name = :name AND NOT EXISTS (SELECT FROM held)
)
SELECT true WHERE NOT EXISTS (SELECT FROM held);

-- name: get_model(publisher, name)^
-- By its address, or one from before that no other model has.
SELECT m.*, (SELECT coalesce(jsonb_object_agg(a.alias, a.version), '{}') FROM aliases a WHERE a.model_id = m.id) AS aliases
FROM models m WHERE m.id = coalesce(
    (SELECT id FROM models WHERE publisher = :publisher AND name = :name),
    (SELECT model_id FROM model_addresses WHERE publisher = :publisher AND name = :name)
);

-- name: is_publisher(publisher)$
-- Whether everybody may know of a model by an address of this publisher's.
SELECT EXISTS (SELECT FROM models WHERE publisher = :publisher AND published_at IS NOT NULL AND visibility <> 2)
    OR EXISTS (SELECT FROM model_addresses a JOIN models m ON m.id = a.model_id
        WHERE a.publisher = :publisher AND m.published_at IS NOT NULL AND m.visibility <> 2);

-- name: former_addresses(model_id)
SELECT a.publisher || '/' || a.name AS model FROM model_addresses a
WHERE a.model_id = :model_id AND NOT EXISTS (SELECT FROM models m WHERE m.publisher = a.publisher AND m.name = a.name)
ORDER BY model;

-- name: list_models(org_id, viewer, before, most)
-- With an organisation all of its own, else the published ones that are not private (2) or are the viewer's.
SELECT m.*, (SELECT coalesce(jsonb_object_agg(a.alias, a.version), '{}') FROM aliases a WHERE a.model_id = m.id) AS aliases
FROM models m
WHERE (CASE WHEN :org_id::text <> '' THEN m.org_id = :org_id
        ELSE m.latest_version <> '' AND (m.visibility <> 2 OR m.org_id = :viewer) END)
    AND (:before::text IS NULL OR m.id < :before)
ORDER BY m.id DESC LIMIT :most;

-- name: update_model(id, display_name, summary, description, card, license, tags, revision, now)^
-- No row: the revision is no longer the current one. A revision of 0 is any; nulls leave a column as it is.
UPDATE models SET display_name = coalesce(:display_name::text, display_name), summary = coalesce(:summary::text, summary),
    description = coalesce(:description::text, description), card = coalesce(:card::bytea, card),
    license = coalesce(:license::text, license), tags = coalesce(:tags::text[], tags),
    revision = revision + 1, updated_at = :now
WHERE id = :id AND (:revision::bigint = 0 OR revision = :revision) RETURNING id;

-- name: touch_model(id, now)!
-- Changes of its versions and aliases change a model: its etag is another, and until the transaction ends they wait for
-- each other here, before they read what they decide by.
UPDATE models SET revision = revision + 1, updated_at = :now WHERE id = :id;

-- name: set_model_limit(id, call_limit)!
UPDATE models SET call_limit = :call_limit::text::jsonb WHERE id = :id;

-- name: set_visibility(id, visibility, now)!
UPDATE models SET visibility = :visibility, revision = revision + 1, updated_at = :now WHERE id = :id;

-- name: set_latest(id, version, now)!
UPDATE models SET latest_version = :version, published_at = coalesce(published_at, :now) WHERE id = :id;

-- name: add_version(id, model_id, version, state, framework, digest, size_bytes, signature, document, release_notes, now)!
-- Versions are counted by their model, whose row makes those made at once wait for each other.
WITH counted AS (UPDATE models SET version_count = version_count + 1 WHERE id = :model_id RETURNING version_count)
INSERT INTO versions (id, model_id, number, version, state, framework, digest, size_bytes, signature, document,
    release_notes, created_at)
SELECT :id, :model_id, version_count, :version, :state, :framework, :digest, :size_bytes, :signature, :document,
    :release_notes, :now
FROM counted;

-- name: get_version(model_id, version)^
-- With who may know of its model.
SELECT v.*, m.visibility FROM versions v JOIN models m ON m.id = v.model_id
WHERE v.model_id = :model_id AND v.version = :version;

-- name: lock_version(model_id, version)^
SELECT v.*, m.visibility FROM versions v JOIN models m ON m.id = v.model_id
WHERE v.model_id = :model_id AND v.version = :version FOR UPDATE OF v;

-- name: list_versions(model_id, all_states, before, most)
-- Others than the owner see what was published.
SELECT * FROM versions WHERE model_id = :model_id AND (:all_states OR state IN (6, 7, 10))
    AND (:before::text IS NULL OR id < :before)
ORDER BY id DESC LIMIT :most;

-- name: list_reviews(after, most)
SELECT v.*, m.publisher, m.name FROM versions v JOIN models m ON m.id = v.model_id
WHERE v.review = 1 AND (:after::text IS NULL OR v.id > :after) ORDER BY v.id LIMIT :most;

-- name: list_unreviewed(model_id, most)
-- What others would see or call if the model were not private, though nobody has reviewed it.
SELECT version FROM versions WHERE model_id = :model_id AND review <> 2 AND state IN (6, 7, 8, 10) ORDER BY id LIMIT :most;

-- name: list_callable(after, most)
SELECT v.*, m.publisher, m.name, m.org_id, m.call_limit, m.visibility FROM versions v JOIN models m ON m.id = v.model_id
WHERE v.state IN (6, 7) AND v.id > :after ORDER BY v.id LIMIT :most;

-- name: published_versions(model_id)
SELECT version FROM versions WHERE model_id = :model_id AND state = 6 AND yanked_by = '';

-- name: move_version(id, state, before, yanked_by, review, yank_reason, review_note, now)!
-- 4 is REVIEW, 6 PUBLISHED, 7 DEPRECATED, 8 QUARANTINED, 9 DELETED. A note of null: as it was. What comes back was
-- published, deprecated or yanked when it was; but what is deleted is not deprecated any more.
UPDATE versions SET state = :state::smallint, review = :review::smallint, review_note = coalesce(:review_note::text, review_note),
    quarantined_from = CASE WHEN :state::smallint = 8 THEN :before::smallint END,
    deleted_from = CASE WHEN :state::smallint = 9 THEN :before::smallint END,
    deleted_at = CASE WHEN :state::smallint = 9 THEN :now::timestamptz END,
    submitted_at = CASE WHEN :state::smallint = 4 THEN :now ELSE submitted_at END,
    published_at = CASE WHEN :state::smallint = 6 THEN coalesce(published_at, :now) ELSE published_at END,
    deprecated_at = CASE WHEN :state::smallint = 7 THEN coalesce(deprecated_at, :now)
        WHEN :state::smallint <> 9 THEN deprecated_at END,
    sunset_at = CASE WHEN :state::smallint <> 9 THEN sunset_at END,
    yanked_by = :yanked_by::text,
    yanked_at = CASE WHEN :yanked_by::text <> '' THEN coalesce(yanked_at, :now) END,
    yank_reason = CASE WHEN :yanked_by::text <> '' THEN coalesce(:yank_reason::text, yank_reason) ELSE '' END
WHERE id = :id;

-- name: deprecate_version(id, sunset_at, successor, reason)!
UPDATE versions SET sunset_at = :sunset_at, successor = :successor, deprecation_reason = :reason WHERE id = :id;

-- name: due_sunset(now)^
SELECT id, version, state FROM versions WHERE state = 7 AND sunset_at <= :now ORDER BY sunset_at LIMIT 1;

-- name: add_decision(id, version_id, user_id, approved, reason, now)!
INSERT INTO version_decisions (id, version_id, user_id, approved, reason, created_at)
VALUES (:id, :version_id, :user_id, :approved, :reason, :now);

-- name: list_decisions(version_id, most)
SELECT approved, reason, created_at FROM version_decisions WHERE version_id = :version_id ORDER BY id DESC LIMIT :most;

-- name: last_published(model_id, id)^
-- The version beside one that was published last after a review and is not yanked, whatever else became of it.
SELECT * FROM versions
WHERE model_id = :model_id AND id <> :id AND published_at IS NOT NULL AND review = 2 AND yanked_by = ''
ORDER BY published_at DESC LIMIT 1;

-- name: add_version_file(version_id, digest)!
INSERT INTO version_files (version_id, digest) VALUES (:version_id, :digest) ON CONFLICT DO NOTHING;

-- name: needed_artifacts(digests, since)
-- Those of every version that is there, or was deleted after an instant.
SELECT found.digest FROM (
    SELECT digest, id FROM versions WHERE digest = ANY(:digests)
    UNION SELECT served_digest, id FROM versions WHERE served_digest <> '' AND served_digest = ANY(:digests)
    UNION SELECT digest, version_id FROM version_files WHERE digest = ANY(:digests)
) AS found JOIN versions v ON v.id = found.id
WHERE v.state <> 9 OR v.deleted_at > :since GROUP BY found.digest;

-- name: set_alias(model_id, alias, version)!
INSERT INTO aliases (model_id, alias, version) VALUES (:model_id, :alias, :version)
ON CONFLICT (model_id, alias) DO UPDATE SET version = excluded.version;

-- name: get_alias(model_id, alias)$
SELECT version FROM aliases WHERE model_id = :model_id AND alias = :alias;

-- name: claim_validation(now, until)^
-- A validation whose process died is claimed again when its claim has run out.
UPDATE versions SET claimed_until = :until WHERE id = (
    SELECT id FROM versions WHERE state = 1 AND (claimed_until IS NULL OR claimed_until < :now)
    ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
) RETURNING *;

-- name: hold_validation(id, until)!
UPDATE versions SET claimed_until = :until WHERE id = :id AND state = 1;

-- name: finish_validation(id, state, framework, form, signature, text, served_digest, served_size_bytes, findings, load_us, run_us, memory_bytes, scan, sample_replies)!
UPDATE versions SET state = :state, framework = :framework, form = :form, signature = :signature, text = :text,
    served_digest = :served_digest, served_size_bytes = :served_size_bytes, findings = :findings::text::jsonb,
    measured_load_us = :load_us, measured_run_us = :run_us, measured_memory_bytes = :memory_bytes, scan = :scan,
    sample_replies = :sample_replies::text::jsonb, claimed_until = NULL
WHERE id = :id AND state = 1;

-- name: add_crash(id, version_id, worker_id, now)!
INSERT INTO crashes (id, version_id, worker_id, created_at) VALUES (:id, :version_id, :worker_id, :now)
ON CONFLICT DO NOTHING;

-- name: count_crashes(version_id, since)$
SELECT count(*) FROM crashes WHERE version_id = :version_id AND created_at > :since;

-- name: forget_crashes(version_id)!
DELETE FROM crashes WHERE version_id = :version_id;

-- name: model_of_version(version_id)^
SELECT m.* FROM models m JOIN versions v ON v.model_id = m.id WHERE v.id = :version_id;

-- name: lock_version_by_id(id)^
SELECT v.*, m.visibility FROM versions v JOIN models m ON m.id = v.model_id WHERE v.id = :id FOR UPDATE OF v;

-- name: add_finding(id, finding)!
UPDATE versions SET findings = findings || :finding::text::jsonb WHERE id = :id;

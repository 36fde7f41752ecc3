-- name: export_models(org_ids)
SELECT (to_jsonb(m) - 'card')::text AS line FROM models m WHERE m.org_id = ANY(:org_ids::text[]) ORDER BY m.id;

-- name: export_versions(org_ids)
SELECT (to_jsonb(v) - ARRAY['signature', 'document', 'text', 'scan', 'claimed_until']
    || jsonb_build_object('model', m.publisher || '/' || m.name))::text AS line
FROM versions v JOIN models m ON m.id = v.model_id WHERE m.org_id = ANY(:org_ids::text[]) ORDER BY v.id;

-- name: export_aliases(org_ids)
SELECT to_jsonb(a)::text AS line FROM aliases a JOIN models m ON m.id = a.model_id
WHERE m.org_id = ANY(:org_ids::text[]) ORDER BY a.model_id, a.alias;

-- name: export_version_files(org_ids)
SELECT to_jsonb(f)::text AS line
FROM version_files f JOIN versions v ON v.id = f.version_id JOIN models m ON m.id = v.model_id
WHERE m.org_id = ANY(:org_ids::text[]) ORDER BY f.version_id, f.digest;

-- name: export_model_addresses(org_ids, handles)
-- Those that their models had, and those that models of others had while they were theirs.
SELECT to_jsonb(a)::text AS line FROM model_addresses a JOIN models m ON m.id = a.model_id
WHERE m.org_id = ANY(:org_ids::text[]) OR a.publisher = ANY(:handles::text[]) ORDER BY a.publisher, a.name;

-- name: export_model_transfers(org_ids)
SELECT to_jsonb(t)::text AS line FROM model_transfers t
WHERE t.from_org_id = ANY(:org_ids::text[]) OR t.to_org_id = ANY(:org_ids::text[]) ORDER BY t.id;

-- name: export_version_decisions(org_ids, user_id)
-- Those about their models, and those that they took themselves.
SELECT (to_jsonb(d) - 'user_id')::text AS line
FROM version_decisions d JOIN versions v ON v.id = d.version_id JOIN models m ON m.id = v.model_id
WHERE m.org_id = ANY(:org_ids::text[]) OR d.user_id = :user_id ORDER BY d.id;

-- name: export_lineage(org_ids)
SELECT (to_jsonb(l) - 'base_model_id')::text AS line FROM lineage l JOIN models m ON m.id = l.model_id
WHERE m.org_id = ANY(:org_ids::text[]) ORDER BY l.model_id, l.version, l.kind, l.name;

-- name: export_publisher_keys(org_ids)
SELECT to_jsonb(k)::text AS line FROM publisher_keys k WHERE k.org_id = ANY(:org_ids::text[]) ORDER BY k.fingerprint;

-- name: export_accesses(org_ids)
SELECT to_jsonb(a)::text AS line FROM accesses a WHERE a.org_id = ANY(:org_ids::text[]) ORDER BY a.id;

-- name: export_acceptances(org_ids)
SELECT (to_jsonb(a) || jsonb_build_object('version', t.version, 'url', t.url, 'terms', t.text))::text AS line
FROM acceptances a JOIN terms t ON t.model_id = a.model_id AND t.digest = a.digest
WHERE a.org_id = ANY(:org_ids::text[]) ORDER BY a.accepted_at;

-- name: made_of_versions(org_ids)
-- Artifacts that validation made of theirs, and of nobody else's.
SELECT DISTINCT v.served_digest AS digest FROM versions v JOIN models m ON m.id = v.model_id
WHERE m.org_id = ANY(:org_ids::text[]) AND v.served_digest <> '' AND NOT EXISTS (
    SELECT FROM versions w JOIN models n ON n.id = w.model_id
    WHERE w.served_digest = v.served_digest AND n.org_id <> ALL(:org_ids::text[])
);

-- name: lock_models(org_ids)
SELECT id, publisher || '/' || name AS model FROM models WHERE org_id = ANY(:org_ids::text[]) ORDER BY id FOR UPDATE;

-- name: erase_aliases(org_ids)!
DELETE FROM aliases a USING models m WHERE m.id = a.model_id AND m.org_id = ANY(:org_ids::text[]);

-- name: erase_crashes(org_ids)!
DELETE FROM crashes c USING versions v, models m
WHERE v.id = c.version_id AND m.id = v.model_id AND m.org_id = ANY(:org_ids::text[]);

-- name: erase_decisions(org_ids)!
DELETE FROM version_decisions d USING versions v, models m
WHERE v.id = d.version_id AND m.id = v.model_id AND m.org_id = ANY(:org_ids::text[]);

-- name: forget_reviewer(user_id)!
-- Why a version of somebody else's was approved or sent back stays.
UPDATE version_decisions SET user_id = '' WHERE user_id = :user_id;

-- name: erase_version_files(org_ids)!
DELETE FROM version_files f USING versions v, models m
WHERE v.id = f.version_id AND m.id = v.model_id AND m.org_id = ANY(:org_ids::text[]);

-- name: erase_lineage(org_ids)!
-- What cards of others name stays in their words, and leads to nothing.
WITH gone AS (DELETE FROM lineage l USING models m WHERE m.id = l.model_id AND m.org_id = ANY(:org_ids::text[]))
UPDATE lineage l SET base_model_id = NULL FROM models b
WHERE b.id = l.base_model_id AND b.org_id = ANY(:org_ids::text[])
    AND NOT EXISTS (SELECT FROM models m WHERE m.id = l.model_id AND m.org_id = ANY(:org_ids::text[]));

-- name: erase_publisher_keys(org_ids)!
DELETE FROM publisher_keys WHERE org_id = ANY(:org_ids::text[]);

-- name: erase_versions(org_ids)!
-- What receipts of calls name stays: which file a version was. A version that is gone is out of service (state 8). They are
-- made anew, since one that has passed validation cannot be changed.
WITH gone AS (
    DELETE FROM versions v USING models m WHERE m.id = v.model_id AND m.org_id = ANY(:org_ids::text[]) RETURNING v.*
)
INSERT INTO versions (id, model_id, number, version, state, framework, digest, size_bytes, signature, document,
    release_notes, created_at, published_at, deprecated_at)
SELECT id, model_id, number, version, 8, framework, digest, size_bytes, '', '', '', created_at, published_at, deprecated_at
FROM gone;

-- name: erase_successors(handles)!
-- Of versions of others.
UPDATE versions SET successor = '' WHERE split_part(successor, '/', 1) = ANY(:handles::text[]);

-- name: erase_transfers(org_ids)!
DELETE FROM model_transfers WHERE from_org_id = ANY(:org_ids::text[]) OR to_org_id = ANY(:org_ids::text[]);

-- name: erase_addresses(org_ids, handles)!
-- Those that their models had, and those that models of others had while they were theirs: they name them.
DELETE FROM model_addresses a USING models m
WHERE m.id = a.model_id AND (m.org_id = ANY(:org_ids::text[]) OR a.publisher = ANY(:handles::text[]));

-- name: erase_acceptances(org_ids)!
DELETE FROM acceptances WHERE org_id = ANY(:org_ids::text[]);

-- name: erase_acceptors(user_id)!
-- That their organisation accepted the terms stays.
UPDATE acceptances SET user_id = '' WHERE user_id = :user_id;

-- name: erase_accesses(org_ids)!
-- And those of others to their models: what was decided about them is in words of theirs.
DELETE FROM accesses a USING models m
WHERE m.id = a.model_id AND (a.org_id = ANY(:org_ids::text[]) OR m.org_id = ANY(:org_ids::text[]));

-- name: erase_requesters(user_id)!
-- That their organisation asked stays.
UPDATE accesses SET requested_by = '' WHERE requested_by = :user_id;

-- name: erase_terms(org_ids)!
UPDATE terms t SET url = '', text = '' FROM models m WHERE m.id = t.model_id AND m.org_id = ANY(:org_ids::text[]);

-- name: erase_models(org_ids, pseudonyms)!
UPDATE models m SET publisher = t.new, display_name = m.name, summary = '', description = '', card = '', tags = '{}',
    license = '',
    homepage = '', latest_version = '', published_at = NULL, call_limit = NULL
FROM unnest(:org_ids::text[], :pseudonyms::text[]) AS t (org_id, new) WHERE m.org_id = t.org_id;

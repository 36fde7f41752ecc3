-- name: get_gate(model_id)^
-- With the terms as they are now; nulls where there are none. Until the transaction ends they stay.
SELECT g.approval, g.terms_digest, t.version, t.url, t.text
FROM gates g LEFT JOIN terms t ON t.model_id = g.model_id AND t.digest = g.terms_digest
WHERE g.model_id = :model_id FOR SHARE OF g;

-- name: put_gate(model_id, approval, digest)!
INSERT INTO gates (model_id, approval, terms_digest) VALUES (:model_id, :approval, :digest)
ON CONFLICT (model_id) DO UPDATE SET approval = excluded.approval, terms_digest = excluded.terms_digest;

-- name: add_terms(model_id, digest, version, url, text, now)!
INSERT INTO terms (model_id, digest, version, url, text, created_at)
VALUES (:model_id, :digest, :version, :url, :text, :now) ON CONFLICT DO NOTHING;

-- name: add_access(id, model_id, org_id, organisation, now)$
-- Nothing: there is one already.
INSERT INTO accesses (id, model_id, org_id, organisation, state, message, requested_at)
VALUES (:id, :model_id, :org_id, :organisation, 1, '', :now) ON CONFLICT DO NOTHING RETURNING id;

-- name: lock_access(model_id, org_id)^
SELECT * FROM accesses WHERE model_id = :model_id AND org_id = :org_id FOR UPDATE;

-- name: find_access(model_id, organisation)$
SELECT org_id FROM accesses WHERE model_id = :model_id AND organisation = :organisation;

-- name: ask_access(id, state, message, user_id, now)!
UPDATE accesses SET state = :state, message = :message, reason = '', requested_by = :user_id, requested_at = :now,
    decided_at = CASE WHEN :state::smallint = 2 THEN :now::timestamptz END
WHERE id = :id;

-- name: decide_access(id, state, reason, now)!
UPDATE accesses SET state = :state, reason = :reason, decided_at = :now WHERE id = :id;

-- name: accept_terms(model_id, org_id, user_id, digest, now)!
INSERT INTO acceptances (model_id, org_id, user_id, digest, accepted_at)
VALUES (:model_id, :org_id, :user_id, :digest, :now) ON CONFLICT DO NOTHING;

-- name: count_granted(model_id)$
SELECT count(*) FROM accesses WHERE model_id = :model_id AND state = 2;

-- name: list_accesses(model_id, org_id, viewer, state, before, most)
-- Of a model, of an organisation, or of both; an empty text is any. Not of models that the viewer may not know of.
SELECT a.*, m.publisher, m.name, c.digest, c.user_id, c.accepted_at, t.version,
    a.state = 2 AND (g.terms_digest = '' OR EXISTS (SELECT FROM acceptances n
        WHERE (n.model_id, n.org_id, n.digest) = (a.model_id, a.org_id, g.terms_digest))) AS may_call
FROM accesses a JOIN models m ON m.id = a.model_id JOIN gates g ON g.model_id = a.model_id
LEFT JOIN LATERAL (SELECT * FROM acceptances n WHERE n.model_id = a.model_id AND n.org_id = a.org_id
    ORDER BY n.accepted_at DESC LIMIT 1) c ON true
LEFT JOIN terms t ON t.model_id = c.model_id AND t.digest = c.digest
WHERE (:model_id::text = '' OR a.model_id = :model_id) AND (:org_id::text = '' OR a.org_id = :org_id)
    AND (m.org_id = :viewer OR (m.published_at IS NOT NULL AND m.visibility <> 2))
    AND (:state::smallint = 0 OR a.state = :state) AND (:before::text = '' OR a.id < :before)
ORDER BY a.id DESC LIMIT :most;

-- name: list_granted(model_id)
-- Organisations whose access is granted and that have accepted the terms as they are now.
SELECT a.org_id FROM accesses a JOIN gates g ON g.model_id = a.model_id
WHERE a.model_id = :model_id AND a.state = 2 AND (g.terms_digest = '' OR EXISTS (SELECT FROM acceptances n
    WHERE (n.model_id, n.org_id, n.digest) = (a.model_id, a.org_id, g.terms_digest)))
ORDER BY a.org_id;

-- name: export_jobs(org_ids)
SELECT (to_jsonb(j) - ARRAY['body', 'claim', 'claimed_until', 'attempts', 'error'])::text AS line FROM jobs j
WHERE j.org_id = ANY(:org_ids::text[]) ORDER BY j.id;

-- name: cancel_jobs(org_ids)!
UPDATE jobs SET cancelled_at = coalesce(cancelled_at, now()),
    state = CASE state WHEN 'running' THEN 'running' ELSE 'cancelled' END,
    ended_at = CASE state WHEN 'running' THEN ended_at ELSE now() END
WHERE org_id = ANY(:org_ids::text[]) AND state IN ('creating', 'queued', 'running');

-- name: list_jobs(org_ids)
SELECT id, state FROM jobs WHERE org_id = ANY(:org_ids::text[]) ORDER BY id;

-- name: erase_job_parts(org_ids)!
DELETE FROM job_parts p USING jobs j WHERE j.id = p.job_id AND j.org_id = ANY(:org_ids::text[]);

-- name: erase_jobs(org_ids)!
DELETE FROM jobs WHERE org_id = ANY(:org_ids::text[]) AND state <> 'running';

-- name: rename_models_of_jobs(handles, pseudonyms)!
-- Of others, which run models of theirs.
UPDATE jobs j SET model = t.new || substr(j.model, length(t.old) + 1)
FROM unnest(:handles::text[], :pseudonyms::text[]) AS t (old, new) WHERE starts_with(j.model, t.old || '/');

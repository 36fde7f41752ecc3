-- Who asked last, to be told what was decided; of those before, who accepted the terms last.
ALTER TABLE accesses ADD COLUMN requested_by text NOT NULL DEFAULT '';
UPDATE accesses a SET requested_by = coalesce((
    SELECT c.user_id FROM acceptances c WHERE (c.model_id, c.org_id) = (a.model_id, a.org_id)
    ORDER BY c.accepted_at DESC LIMIT 1
), '');

-- name: add_mail(id, kind, owner_id, sealed, now, expires_at)!
INSERT INTO mails (id, kind, owner_id, sealed, due_at, expires_at)
VALUES (:id, :kind, :owner_id, :sealed, :now, :expires_at);

-- name: claim_mails(now, until, most)
-- A sender that dies leaves them due again.
UPDATE mails SET attempts = attempts + 1, due_at = :until
WHERE id IN (
    SELECT id FROM mails WHERE due_at <= :now AND owner_id IS NOT NULL ORDER BY due_at LIMIT :most FOR UPDATE SKIP LOCKED
) RETURNING id, kind, owner_id, sealed, attempts, expires_at;

-- name: put_off_mail(id, due_at)!
UPDATE mails SET due_at = :due_at WHERE id = :id;

-- name: end_mail(id)!
DELETE FROM mails WHERE id = :id;

-- name: end_mails_of(owner_id)!
DELETE FROM mails WHERE owner_id = :owner_id;

-- name: list_mails()
SELECT id, owner_id, sealed FROM mails WHERE owner_id IS NOT NULL;

-- name: count_sealed_directly()
-- By the name of the installation's key; what data keys sealed begins with 'mdk1' and is not counted.
SELECT encode(substr(sealed, 1, 4), 'hex') AS under, count(*) AS found FROM (
    SELECT sealed FROM mails
    UNION ALL SELECT sealed_secret FROM totp_factors
    UNION ALL SELECT sealed_secret FROM signing_keys WHERE sealed_secret IS NOT NULL
) s WHERE substr(sealed, 1, 4) <> convert_to('mdk1', 'UTF8') GROUP BY 1 ORDER BY 1;

-- name: sealed_directly()
-- What the installation's keys sealed themselves, whose it is, and what it was sealed as.
SELECT 'totp' AS kind, user_id AS id, user_id AS owner_id, sealed_secret AS sealed, 'totp:' || user_id AS about
FROM totp_factors WHERE substr(sealed_secret, 1, 4) <> convert_to('mdk1', 'UTF8')
UNION ALL
SELECT 'signing_key', s.id, coalesce(k.user_id, k.org_id), s.sealed_secret, s.id
FROM signing_keys s JOIN api_keys k ON k.id = s.key_id WHERE substr(s.sealed_secret, 1, 4) <> convert_to('mdk1', 'UTF8')
UNION ALL
SELECT 'mail', id, id, sealed, id FROM mails WHERE owner_id IS NULL;

-- name: reseal_totp(id, owner_id, before, sealed)!
UPDATE totp_factors SET sealed_secret = :sealed WHERE user_id = :id AND user_id = :owner_id AND sealed_secret = :before;

-- name: reseal_signing_key(id, owner_id, before, sealed)!
UPDATE signing_keys SET sealed_secret = :sealed
WHERE id = :id AND sealed_secret = :before AND :owner_id::text <> '';

-- name: reseal_mail(id, owner_id, before, sealed)!
UPDATE mails SET sealed = :sealed, owner_id = :owner_id WHERE id = :id AND sealed = :before;

-- name: count_sealed_directly()
-- By the name of the installation's key; what data keys sealed begins with 'mdk1' and is not counted.
SELECT under, sum(found)::bigint AS found FROM (
    SELECT encode(substr(sealed, 1, 4), 'hex') AS under, count(*) AS found FROM mails GROUP BY 1
    UNION ALL
    SELECT encode(substr(sealed_secret, 1, 4), 'hex'), count(*) FROM totp_factors
    WHERE substr(sealed_secret, 1, 4) <> convert_to('mdk1', 'UTF8') GROUP BY 1
) s GROUP BY under ORDER BY under;

-- name: first_posting(after, until)$
-- Of the ids from some digits on, without their prefix. Entries are looked at beside: their postings may be gone.
SELECT substr(id, 5) FROM postings WHERE id >= 'pst_' || :after AND id < 'pst_' || :until ORDER BY id LIMIT 1;

-- name: next_bound(after, until, rows)$
-- The posting that is so many further on; nothing when there are fewer.
SELECT substr(id, 5) FROM postings WHERE id >= 'pst_' || :after AND id < 'pst_' || :until ORDER BY id OFFSET :rows LIMIT 1;

-- name: prove_postings(after, until, seed)
-- Postings of calls that are what was posted and sum to zero, together by the first digits of their causes; every other
-- posting by itself, with its entries. A call's payer and payee are hashed only where its entries are those of a call, so
-- that others make a difference. What is computed of a posting is computed once.
WITH account AS MATERIALIZED (
    SELECT id, org_id, CASE WHEN kind = 'customer_wallet' THEN 1 WHEN kind = 'promotional_credit' THEN 2
        WHEN kind = 'publisher_payable' THEN 3 WHEN kind = 'platform_fee' AND org_id = '' THEN 4 ELSE 5 END AS role
    FROM accounts
), moved AS (
    SELECT e.posting_id, sum(e.amount) AS total,
        string_agg(e.account_id || ' ' || e.amount, E'\n' ORDER BY e.account_id COLLATE "C") AS lines,
        -sum(e.amount) FILTER (WHERE a.role <= 2) AS paid,
        min(a.org_id) FILTER (WHERE a.role <= 2) AS payer, max(a.org_id) FILTER (WHERE a.role <= 2) AS last_payer,
        min(a.org_id) FILTER (WHERE a.role = 3) AS payee, max(a.org_id) FILTER (WHERE a.role = 3) AS last_payee,
        bool_and(a.role < 5) AND bool_and(a.id IS NOT NULL) AS usual,
        bool_and((e.amount < 0) = (a.role <= 2)) AS charge
    FROM entry_rows e LEFT JOIN account a ON a.id = e.account_id
    WHERE e.posting_id >= :after AND e.posting_id < :until GROUP BY e.posting_id
), within AS (
    SELECT p.*, coalesce(wallet_id, credit_id, payable_id, fee_id) IS NOT NULL AS in_a_row
    FROM postings p WHERE p.id >= :after AND p.id < :until
), joined AS MATERIALIZED (
    SELECT coalesce(p.id, m.posting_id) AS id, p.cause, p.kind, m.lines, coalesce(m.total, 0) AS total, m.paid,
        p.digest = sha256(convert_to(p.cause || E'\n' || p.kind || coalesce(E'\n' || m.lines, ''), 'UTF8')) AS kept,
        m.lines IS NOT NULL AND m.total = 0 AS balanced,
        starts_with(p.cause, 'req_') OR starts_with(p.cause, 'cor_') AS of_call,
        CASE WHEN m.usual AND m.payer = m.last_payer AND m.payee = m.last_payee AND (m.charge OR starts_with(p.cause, 'cor_'))
            THEN hashtextextended(p.cause || ' ' || m.payer || ' ' || m.payee || ' ' || m.paid, :seed::bigint) ELSE 0 END
            AS checksum
    FROM (SELECT * FROM within WHERE NOT in_a_row) p FULL JOIN moved m ON m.posting_id = p.id
    UNION ALL
    SELECT p.id, p.cause, p.kind, m.lines, m.total, m.paid,
        p.digest = sha256(convert_to(p.cause || E'\n' || p.kind || E'\n' || m.lines, 'UTF8')), m.total = 0,
        starts_with(p.cause, 'req_'),
        CASE WHEN (p.wallet_id IS NULL OR w.role = 1 AND p.wallet_amount < 0)
            AND (p.credit_id IS NULL OR c.role = 2 AND p.credit_amount < 0)
            AND (p.fee_id IS NULL OR f.role = 4 AND p.fee_amount > 0) AND y.role = 3 AND p.payable_amount > 0
            AND coalesce(w.org_id, c.org_id) = coalesce(c.org_id, w.org_id)
            THEN hashtextextended(
                p.cause || ' ' || coalesce(w.org_id, c.org_id) || ' ' || y.org_id || ' ' || m.paid, :seed::bigint
            ) ELSE 0 END
    FROM within p LEFT JOIN account w ON w.id = p.wallet_id LEFT JOIN account c ON c.id = p.credit_id
    LEFT JOIN account y ON y.id = p.payable_id LEFT JOIN account f ON f.id = p.fee_id
    CROSS JOIN LATERAL (
        SELECT concat_ws(E'\n', p.wallet_id || ' ' || p.wallet_amount, p.credit_id || ' ' || p.credit_amount,
                p.payable_id || ' ' || p.payable_amount, p.fee_id || ' ' || p.fee_amount) AS lines,
            coalesce(p.wallet_amount, 0) + coalesce(p.credit_amount, 0) + coalesce(p.payable_amount, 0)
                + coalesce(p.fee_amount, 0) AS total,
            -coalesce(p.wallet_amount, 0) - coalesce(p.credit_amount, 0) AS paid
    ) m WHERE p.in_a_row
)
SELECT substr(cause, 5, 7) AS digits, NULL AS id, count(*) AS postings, coalesce(sum(paid), 0)::bigint AS paid,
    bit_xor(checksum) AS checksum, true AS kept, true AS balanced, 0::bigint AS total, NULL AS cause, NULL AS kind,
    NULL AS lines
FROM joined WHERE of_call AND kept AND balanced GROUP BY 1
UNION ALL
SELECT NULL, id, 1, coalesce(paid, 0)::bigint, 0, kept, balanced, total::bigint, cause, kind, lines
FROM joined WHERE (of_call AND kept AND balanced) IS NOT TRUE;

-- name: accounts_of(ids)
SELECT id, org_id, kind FROM accounts WHERE id = ANY(:ids::text[]);

-- name: moved_by_calls(after, until)
-- What calls of a time did to each account.
SELECT a.org_id, a.kind, sum(e.amount)::bigint AS amount
FROM entries e JOIN postings p ON p.id = e.posting_id JOIN accounts a ON a.id = e.account_id
WHERE e.posting_id >= :after AND e.posting_id < :until AND p.id >= :after AND p.id < :until
    AND (starts_with(p.cause, 'req_') OR starts_with(p.cause, 'cor_'))
GROUP BY a.org_id, a.kind;

-- name: postings_of_calls(digits, beyond)
-- Those of calls and corrections whose ids begin with some digits. A posting's id is that of its cause; one of another
-- id has no entries here.
SELECT p.id, p.cause, p.created_at, e.account_ids, e.org_ids, e.kinds, e.amounts FROM postings p LEFT JOIN (
    SELECT e.posting_id, array_agg(e.account_id) AS account_ids, array_agg(a.org_id) AS org_ids,
        array_agg(a.kind) AS kinds, array_agg(e.amount) AS amounts
    FROM entries e LEFT JOIN accounts a ON a.id = e.account_id
    WHERE e.posting_id >= 'pst_' || :digits::text AND e.posting_id < 'pst_' || :beyond::text GROUP BY e.posting_id
) e ON e.posting_id = p.id
WHERE p.cause >= 'req_' || :digits AND p.cause < 'req_' || :beyond
    OR p.cause >= 'cor_' || :digits AND p.cause < 'cor_' || :beyond;

-- name: trial_balance()
SELECT a.kind, sum(b.balance)::bigint AS balance FROM balances b JOIN accounts a ON a.id = b.account_id GROUP BY a.kind;

-- name: wrong_balances()
SELECT coalesce(b.account_id, s.account_id) AS account_id, coalesce(b.balance, 0) AS balance,
    coalesce(s.total, 0)::bigint AS total
FROM balances b FULL JOIN (SELECT account_id, sum(amount) AS total FROM entries GROUP BY account_id) s
    ON s.account_id = b.account_id
WHERE coalesce(b.balance, 0) <> coalesce(s.total, 0) LIMIT 100;

-- name: wrong_reservations()
SELECT w.org_id, w.reserved, coalesce(l.held, 0)::bigint AS held
FROM wallets w LEFT JOIN (
    SELECT org_id, sum(granted - posted) AS held FROM leases WHERE NOT closed GROUP BY org_id
) l ON l.org_id = w.org_id
WHERE w.reserved <> coalesce(l.held, 0) LIMIT 100;

-- name: negative_wallets()
-- A correction may owe what the wallet does not hold; nothing else spends below zero.
SELECT w.org_id, b.balance FROM wallets w JOIN balances b ON b.account_id = w.account_id
LEFT JOIN (SELECT org_id, sum(cost_change) AS owed FROM corrections WHERE cost_change > 0 GROUP BY org_id) c
    ON c.org_id = w.org_id
WHERE b.balance < -w.credit_limit - coalesce(c.owed, 0) LIMIT 100;

-- name: wrong_wallets()
SELECT w.org_id, w.account_id FROM wallets w LEFT JOIN accounts a ON a.id = w.account_id
WHERE a.org_id IS DISTINCT FROM w.org_id OR a.kind <> 'customer_wallet' LIMIT 100;

-- name: transactions(after, until)
-- Those of causes of a time, without its digits' prefix.
SELECT id, org_id, amount, status, cause FROM transactions
WHERE substring(cause FROM '[^_]*$') COLLATE "C" >= :after AND substring(cause FROM '[^_]*$') COLLATE "C" < :until;

-- name: strange_postings()
SELECT id FROM postings WHERE id < 'pst_' OR id >= 'pst_~' LIMIT 100;

-- What the books say of money that moves at a payment provider, under the provider's name for it.
CREATE VIEW owned AS
SELECT 'payment' AS kind, id, split_part(id, '_', 2) COLLATE "C" AS digits, provider, provider_ref AS ref, amount,
    CASE status WHEN 'succeeded' THEN 'succeeded' WHEN 'failed' THEN 'failed' ELSE 'pending' END AS status
FROM payments
UNION ALL
SELECT r.kind, r.id, split_part(r.id, '_', 2) COLLATE "C", p.provider, r.provider_ref, r.amount,
    CASE r.status WHEN 'paid' THEN 'succeeded' WHEN 'returned' THEN 'failed' ELSE 'pending' END
FROM reversals r JOIN payments p ON p.id = r.payment_id
UNION ALL
SELECT 'transfer', id, split_part(id, '_', 2) COLLATE "C", provider, provider_ref, amount,
    CASE status WHEN 'paid' THEN 'succeeded' WHEN 'failed' THEN 'failed' ELSE 'pending' END
FROM payouts;

-- Entries of a time: they come in about the order of their postings' ids.
CREATE INDEX entries_times ON entries USING brin (posting_id) WITH (pages_per_range = 32, autosummarize = on);

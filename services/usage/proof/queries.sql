-- name: next_bound(after, until, rows)$
-- The id that is so many calls further on; nothing when there are fewer.
SELECT request_id FROM usage_records WHERE request_id >= 'req_' || :after AND request_id < 'req_' || :until
ORDER BY request_id OFFSET :rows LIMIT 1;

-- name: first_id(after, until)$
-- Of the calls and corrections from one moment to another, the first one's, without its prefix.
SELECT least(
    (SELECT substr(request_id, 5) FROM usage_records
        WHERE request_id >= 'req_' || :after AND request_id < 'req_' || :until ORDER BY request_id LIMIT 1),
    (SELECT substr(request_id, 5) FROM usage_records
        WHERE request_id >= 'cor_' || :after AND request_id < 'cor_' || :until ORDER BY request_id LIMIT 1)
);

-- name: sum_calls(start, until, after, before, seed)
-- By the first seven digits of ids, which are 2^15 milliseconds, and by price.
SELECT substr(request_id, 5, 7) AS digits, price_id, count(*) AS records,
    count(*) FILTER (WHERE cost <> 0 AND NOT test) AS calls,
    coalesce(sum(cost) FILTER (WHERE NOT test), 0)::bigint AS cost,
    coalesce(bit_xor(hashtextextended(
        request_id || ' ' || org_id || ' ' || publisher_org_id || ' ' || cost, :seed::bigint
    )) FILTER (WHERE cost <> 0 AND NOT test), 0) AS checksum
FROM usage_records
WHERE timestamp >= :start AND timestamp < :until
    AND ((request_id >= 'req_' || :after::text AND request_id < 'req_' || :before::text)
        OR (request_id >= 'cor_' || :after AND request_id < 'cor_' || :before))
GROUP BY 1, 2;

-- name: group_calls(start, until, first, last, price_ids, meters, flat_ids, requests, rows, input_bytes, input_tokens, cached_input_tokens, output_tokens)
-- A cost depends on the price's own meters, so that calls alike in those are alike whatever else was counted. Those that are
-- nearest to the exact amount of a price by the million are one group. A price that was not asked about is one that a call
-- named only since.
WITH flat AS MATERIALIZED (
    SELECT * FROM unnest(:flat_ids::text[], :requests::bigint[], :rows::bigint[], :input_bytes::bigint[],
        :input_tokens::bigint[], :cached_input_tokens::bigint[], :output_tokens::bigint[])
        AS t (id, requests, rows, input_bytes, input_tokens, cached_input_tokens, output_tokens)
), prices AS MATERIALIZED (
    SELECT t.i AS id, ARRAY(SELECT unnest(ARRAY[
        'requests', 'rows', 'input_bytes', 'input_tokens', 'cached_input_tokens', 'output_tokens'
    ]) EXCEPT SELECT unnest(string_to_array(t.m, ' '))) AS others
    FROM unnest(:price_ids::text[], :meters::text[]) AS t (i, m)
), records AS (
    SELECT r.request_id, r.price_id, r.rating, r.cost, r.status_code, r.units, f.id IS NOT NULL AND r.rating IS NULL
        AND r.status_code = 0 AND NOT r.units ? 'cache_hits' AND abs(2 * (r.cost::numeric * 1000000
            - CASE WHEN f.requests = 0 THEN 0 ELSE f.requests * coalesce((r.units ->> 'requests')::numeric, 0) END
            - CASE WHEN f.rows = 0 THEN 0 ELSE f.rows * coalesce((r.units ->> 'rows')::numeric, 0) END
            - CASE WHEN f.input_bytes = 0 THEN 0 ELSE f.input_bytes * coalesce((r.units ->> 'input_bytes')::numeric, 0) END
            - CASE WHEN f.input_tokens = 0 THEN 0 ELSE f.input_tokens * coalesce((r.units ->> 'input_tokens')::numeric, 0) END
            - CASE WHEN f.cached_input_tokens = 0 THEN 0
                ELSE f.cached_input_tokens * coalesce((r.units ->> 'cached_input_tokens')::numeric, 0) END
            - CASE WHEN f.output_tokens = 0 THEN 0
                ELSE f.output_tokens * coalesce((r.units ->> 'output_tokens')::numeric, 0) END
        )) < 1000000 AS exact
    FROM usage_records r LEFT JOIN flat f ON f.id = r.price_id
    WHERE r.timestamp >= :start AND r.timestamp < :until AND r.request_id >= :first::text AND r.request_id < :last::text
        AND NOT r.test
)
SELECT NULL AS request_id, count(*) AS calls, NULL AS price_id, NULL::jsonb AS units, NULL::jsonb AS rating, 0::bigint AS cost,
    0 AS status_code
FROM records WHERE exact
UNION ALL
SELECT min(request_id), count(*), price_id, units, rating, cost, status_code FROM (
    SELECT r.request_id, r.price_id, r.rating, r.cost, r.status_code,
        CASE r.price_id WHEN '' THEN '{}' ELSE coalesce(r.units - p.others, r.units) END AS units
    FROM records r LEFT JOIN prices p ON p.id = r.price_id WHERE r.exact IS NOT TRUE
) r GROUP BY price_id, units, rating, cost, status_code;

-- name: records_between(start, until, first, last, most)
SELECT * FROM usage_records WHERE timestamp >= :start AND timestamp < :until AND request_id >= :first AND request_id < :last
ORDER BY request_id LIMIT :most;

-- name: sum_spending(start, leases, days, org_ids)
-- `leases`: before the first ids of leases of each day. A call without a lease counts on the day of its arrival.
SELECT org_id, day, api_key_id AS key_id, model_id, sum(cost)::bigint AS cost FROM (
    SELECT org_id, api_key_id, model_id, cost, CASE WHEN starts_with(lease_id, 'lse_') AND length(lease_id) = 30
        THEN (:days::date[])[nullif(width_bucket(lease_id COLLATE "C", :leases::text[] COLLATE "C"), 0)]
        ELSE (timestamp AT TIME ZONE 'UTC')::date END AS day
    FROM usage_records
    WHERE timestamp >= :start AND cost <> 0 AND NOT test AND corrects IS NULL
        AND (cardinality(:org_ids::text[]) = 0 OR org_id = ANY(:org_ids))
) s
WHERE day >= (:days)[1] GROUP BY org_id, day, api_key_id, model_id;

-- Prices of tiers, packages and allowances: `components` holds objects of the contract's form from here on, and
-- [meter, nanos per million] in rows from before. A price is in effect from `effective_at` on, which may be to come.
ALTER TABLE prices ADD COLUMN minimum_nanos bigint NOT NULL DEFAULT 0;

-- Prices that are to come: they leave when their moment is there and was told.
CREATE TABLE due_prices (
    price_id text PRIMARY KEY,
    model_id text NOT NULL,
    model text NOT NULL,
    effective_at timestamptz NOT NULL
);
CREATE INDEX due_prices_at ON due_prices (effective_at);

-- What a publisher takes off for an organisation. Calls carry what was taken off, so a row may change.
CREATE TABLE discounts (
    publisher_org_id text NOT NULL,
    org_id text NOT NULL,
    model_id text NOT NULL, -- empty: all of the publisher's
    model text NOT NULL,
    discount_ppm integer NOT NULL CHECK (discount_ppm BETWEEN 1 AND 1000000),
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (publisher_org_id, org_id, model_id)
);

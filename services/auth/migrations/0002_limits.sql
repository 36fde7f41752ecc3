-- How much accounts and keys may call models (mercat.common.v1.CallLimit). Without a limit of its own an account has its
-- tier's, a key none.
ALTER TABLE organisations ADD COLUMN tier smallint NOT NULL DEFAULT 2, ADD COLUMN call_limit jsonb;
ALTER TABLE api_keys ADD COLUMN call_limit jsonb;

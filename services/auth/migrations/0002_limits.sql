-- How much accounts and keys may call models. Without limits of their own accounts have their tier's, keys none.
ALTER TABLE organisations
    ADD COLUMN tier smallint NOT NULL DEFAULT 2,
    ADD COLUMN calls_per_second integer,
    ADD COLUMN burst integer;
ALTER TABLE api_keys ADD COLUMN calls_per_second integer, ADD COLUMN burst integer;

-- What a call's cost depends on beside price and units, as JSON of the contract's Rating; NULL: on nothing.
ALTER TABLE usage_records ADD COLUMN rating jsonb;

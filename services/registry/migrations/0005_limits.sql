-- The calls of all callers of a model together; without them there is no such limit.
ALTER TABLE models ADD COLUMN calls_per_second integer, ADD COLUMN burst integer;

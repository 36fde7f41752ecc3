-- Of the calls of all callers of a model together (mercat.common.v1.CallLimit).
ALTER TABLE models ADD COLUMN call_limit jsonb;

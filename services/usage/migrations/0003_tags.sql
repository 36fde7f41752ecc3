-- What the caller set on a call: {name: value}; none is NULL, which takes no room.
ALTER TABLE usage_records ADD COLUMN tags jsonb;

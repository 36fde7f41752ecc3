-- What handles that look alike share (services/common/names.py). Of those that were here before and look alike the oldest
-- has it, and the others go on without. Handles of those who were erased have none.
ALTER TABLE organisations ADD COLUMN skeleton text;
UPDATE organisations o SET skeleton = first.skeleton FROM (
    SELECT DISTINCT ON (skeleton) id, skeleton FROM (
        SELECT id, created_at,
            translate(replace(replace(replace(handle, '-', ''), 'rn', 'm'), 'vv', 'w'), '01i5', 'olls') AS skeleton
        FROM organisations WHERE handle <> 'deleted-' || split_part(id, '_', 2)
    ) named ORDER BY skeleton, created_at, id
) first WHERE first.id = o.id;
CREATE UNIQUE INDEX organisations_skeleton ON organisations (skeleton);

-- Under which key released handles are hashed; it lies sealed. Hashes that are not keyed yet are from before.
CREATE TABLE handle_keys (
    id boolean PRIMARY KEY DEFAULT true CHECK (id), -- there is one
    sealed bytea NOT NULL
);
ALTER TABLE retired_handles ADD COLUMN keyed boolean NOT NULL DEFAULT false;
CREATE INDEX retired_handles_unkeyed ON retired_handles (retired_at) WHERE NOT keyed;

-- What became of a version's review, beside its state: 0 it was not asked for, 1 asked for, 2 passed (ReviewStanding). Until
-- now nothing was approved, published or ended without one.
ALTER TABLE versions ADD COLUMN review smallint NOT NULL DEFAULT 0 CHECK (review BETWEEN 0 AND 2);
UPDATE versions SET review = CASE WHEN state = 4 THEN 1 ELSE 2 END
WHERE state IN (4, 5, 6, 7, 8, 10) OR (state = 9 AND deleted_from = 5);
CREATE INDEX versions_review ON versions (id) WHERE review = 1;

-- What names of a publisher's models that look alike share (services/common/names.py). Of those that were here before and
-- look alike the oldest has it, and the others go on without.
ALTER TABLE models ADD COLUMN skeleton text;
UPDATE models m SET skeleton = first.skeleton FROM (
    SELECT DISTINCT ON (publisher, skeleton) id, skeleton FROM (
        SELECT id, publisher,
            translate(replace(replace(translate(name, '-_.', ''), 'rn', 'm'), 'vv', 'w'), '01i5', 'olls') AS skeleton
        FROM models
    ) named ORDER BY publisher, skeleton, id
) first WHERE first.id = m.id;
CREATE UNIQUE INDEX models_skeleton ON models (publisher, skeleton);

-- Since when an address leads elsewhere.
ALTER TABLE model_addresses ADD COLUMN left_at timestamptz NOT NULL DEFAULT now();
ALTER TABLE model_addresses ALTER COLUMN left_at DROP DEFAULT;

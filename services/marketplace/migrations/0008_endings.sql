-- What became of published versions, for feeds: 2 deprecated, 3 retired, 4 yanked. Copies of what the registry says of
-- models that everybody may know of; of such they stay when nothing of the model is listed any more.
CREATE TABLE endings (
    model text NOT NULL,
    publisher text NOT NULL,
    version text NOT NULL,
    version_id text NOT NULL COLLATE "C",
    kind smallint NOT NULL CHECK (kind BETWEEN 2 AND 4),
    at timestamptz NOT NULL, -- or when it was said anew
    sunset_at timestamptz,
    successor text NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (version_id, kind)
);
CREATE INDEX endings_model ON endings (model);
CREATE INDEX endings_publisher ON endings (publisher);

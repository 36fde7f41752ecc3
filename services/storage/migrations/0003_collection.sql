-- When an artifact was last stored or asked for by somebody who wants to make a version of it, and whether it is being
-- removed: then it is there for nobody any more, until it is stored again.
ALTER TABLE artifacts ADD COLUMN used_at timestamptz NOT NULL DEFAULT now(), ADD COLUMN removing boolean NOT NULL DEFAULT false;
ALTER TABLE artifacts ALTER COLUMN used_at DROP DEFAULT;
CREATE INDEX artifacts_used ON artifacts (used_at);

-- What the submitter set apart the job's calls by: as the header says it, `env=prod,team=research`.
ALTER TABLE jobs ADD COLUMN tags text NOT NULL DEFAULT '';

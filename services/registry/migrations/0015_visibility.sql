-- Who may know of a model, and who may call it: 1 PUBLIC, 2 PRIVATE (its organisation), 3 GATED (all know, some call).
ALTER TABLE models ADD COLUMN visibility smallint NOT NULL DEFAULT 1 CHECK (visibility BETWEEN 1 AND 3);

-- What the front matter of a model's card says (mercat.registry.v1.CardMetadata, serialized); empty: there is none. Of a
-- version's card it is in its document.
ALTER TABLE models ADD COLUMN card bytea NOT NULL DEFAULT '';

-- What the client wants to find again. An empty digest: it was not announced, and is known when all bytes are there.
ALTER TABLE uploads ADD COLUMN metadata text NOT NULL DEFAULT '';
CREATE INDEX uploads_org ON uploads (org_id, id DESC);

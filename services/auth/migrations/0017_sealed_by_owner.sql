-- Under whose data key a mail lies: a person's, or of an invitation the organisation's. Null: under the installation's
-- keys, from before; it is sealed anew before it is sent.
ALTER TABLE mails ADD COLUMN owner_id text;
CREATE INDEX mails_owner ON mails (owner_id);

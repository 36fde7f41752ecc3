-- Mails to an address, and from an organisation, are counted by the hour.
CREATE INDEX invitations_created ON invitations (created_at);

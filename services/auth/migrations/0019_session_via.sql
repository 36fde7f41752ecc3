-- The organisation by whose provider a session was opened, or the device's that let it in; empty: none. Of sessions from
-- before it is not known: where single sign-on is required they do not act for the organisation.
ALTER TABLE sessions ADD COLUMN via text NOT NULL DEFAULT '';
ALTER TABLE device_codes ADD COLUMN via text NOT NULL DEFAULT '';

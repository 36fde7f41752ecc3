-- What publishers say of themselves. The skeleton of a display name is what names that look alike share.
CREATE TABLE publisher_profiles (
    org_id text PRIMARY KEY,
    publisher text NOT NULL UNIQUE, -- its handle
    display_name text NOT NULL,
    skeleton text NOT NULL,
    about text NOT NULL,
    website text NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX publisher_profiles_skeleton ON publisher_profiles (skeleton) WHERE skeleton <> '';

-- Where people are signed in. The refresh tokens of a session are its family; a session that ends is a row that goes.
CREATE TABLE sessions (
    id text PRIMARY KEY,
    user_id text NOT NULL REFERENCES users (id),
    created_at timestamptz NOT NULL,
    last_used_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    authenticated_at timestamptz NOT NULL,
    second_factor boolean NOT NULL DEFAULT false,
    ip_address inet,
    user_agent text NOT NULL
);
CREATE INDEX sessions_user ON sessions (user_id, id DESC);

INSERT INTO sessions (id, user_id, created_at, last_used_at, expires_at, authenticated_at, user_agent)
SELECT family, user_id, min(expires_at) - interval '30 days', max(expires_at) - interval '30 days', max(expires_at),
    min(expires_at) - interval '30 days', ''
FROM refresh_tokens GROUP BY family, user_id;

-- Codes that came by mail: `purpose` is verify_email or reset_password. One that is used is a row that goes.
CREATE TABLE mail_codes (
    code_hash bytea PRIMARY KEY,
    purpose text NOT NULL,
    user_id text NOT NULL REFERENCES users (id),
    email text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX mail_codes_user ON mail_codes (user_id, purpose, created_at);

-- Mail on its way. To whom and what is encrypted; a row goes when it was sent or comes too late.
CREATE TABLE mails (
    id text PRIMARY KEY,
    kind text NOT NULL,
    sealed bytea NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    due_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX mails_due ON mails (due_at);

-- Failed sign-ins, by email address (its hash, whether it has an account or not) and by address on the network.
CREATE TABLE sign_in_failures (
    subject text PRIMARY KEY,
    failures integer NOT NULL DEFAULT 0,
    failed_at timestamptz NOT NULL,
    locked_until timestamptz
);
CREATE INDEX sign_in_failures_failed ON sign_in_failures (failed_at);

ALTER TABLE users DROP COLUMN failed_sign_ins, DROP COLUMN locked_until;

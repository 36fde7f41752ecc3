-- Secrets of authenticator apps, encrypted. `last_step`: the 30 seconds, counted from 1970, whose code was accepted
-- last; none of before is accepted any more. Without `confirmed_at` it is not a factor yet.
CREATE TABLE totp_factors (
    user_id text PRIMARY KEY REFERENCES users (id),
    sealed_secret bytea NOT NULL,
    created_at timestamptz NOT NULL,
    confirmed_at timestamptz,
    last_step bigint NOT NULL DEFAULT 0
);

-- A code that is used is a row that goes.
CREATE TABLE recovery_codes (
    user_id text NOT NULL REFERENCES totp_factors (user_id) ON DELETE CASCADE,
    code_hash bytea NOT NULL,
    PRIMARY KEY (user_id, code_hash)
);

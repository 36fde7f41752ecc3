-- Keys that people's devices hold (WebAuthn). `sign_count`: of the last use; a copy of the key would fall behind it.
CREATE TABLE passkeys (
    id text PRIMARY KEY,
    user_id text NOT NULL REFERENCES users (id),
    credential_id bytea NOT NULL UNIQUE,
    public_key bytea NOT NULL,
    sign_count bigint NOT NULL,
    name text NOT NULL,
    synced boolean NOT NULL,
    created_at timestamptz NOT NULL,
    last_used_at timestamptz
);
CREATE INDEX passkeys_user ON passkeys (user_id, id DESC);

-- What devices are asked to sign, once. `user_id`: who registers; null: whoever signs in.
CREATE TABLE passkey_challenges (
    challenge bytea PRIMARY KEY,
    user_id text REFERENCES users (id),
    expires_at timestamptz NOT NULL
);
CREATE INDEX passkey_challenges_expires ON passkey_challenges (expires_at);

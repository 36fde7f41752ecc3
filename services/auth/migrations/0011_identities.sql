-- Who people are at other places that they sign in with. One of a place is of one account.
CREATE TABLE identities (
    id text PRIMARY KEY,
    user_id text NOT NULL REFERENCES users (id),
    provider text NOT NULL,
    issuer text NOT NULL,
    subject text NOT NULL,
    email text NOT NULL,
    created_at timestamptz NOT NULL,
    last_used_at timestamptz NOT NULL,
    UNIQUE (issuer, subject)
);
CREATE INDEX identities_user ON identities (user_id, id DESC);

-- Sign-ins that are under way elsewhere. `sealed`: what proves that the answer is ours (nonce, code verifier), encrypted;
-- `found`: who it is, encrypted, once the provider has said so, for whoever brings the code and its verifier.
CREATE TABLE identity_attempts (
    state_hash bytea PRIMARY KEY,
    provider text NOT NULL,
    sealed bytea NOT NULL,
    redirect_uri text NOT NULL,
    client_state text NOT NULL,
    code_challenge text NOT NULL,
    link_user_id text REFERENCES users (id),
    expires_at timestamptz NOT NULL,
    code_hash bytea UNIQUE,
    found bytea
);
CREATE INDEX identity_attempts_expires ON identity_attempts (expires_at);

CREATE TABLE users (
    id text PRIMARY KEY,
    email text NOT NULL,
    username text NOT NULL,
    password_hash text NOT NULL,
    role smallint NOT NULL,
    is_verified boolean NOT NULL DEFAULT false,
    display_name text NOT NULL DEFAULT '',
    revision bigint NOT NULL DEFAULT 1,
    failed_sign_ins integer NOT NULL DEFAULT 0,
    locked_until timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    deleted_at timestamptz
);
CREATE UNIQUE INDEX users_email ON users (lower(email));
CREATE UNIQUE INDEX users_username ON users (username);

-- Everybody has a personal organisation whose handle is their username: it pays, owns models and earns.
CREATE TABLE organisations (
    id text PRIMARY KEY,
    handle text NOT NULL UNIQUE,
    personal_of text UNIQUE REFERENCES users (id),
    created_at timestamptz NOT NULL
);

CREATE TABLE members (
    org_id text NOT NULL REFERENCES organisations (id),
    user_id text NOT NULL REFERENCES users (id),
    role text NOT NULL,
    PRIMARY KEY (org_id, user_id)
);

CREATE TABLE api_keys (
    id text PRIMARY KEY,
    user_id text NOT NULL REFERENCES users (id),
    org_id text NOT NULL REFERENCES organisations (id),
    key_hash bytea NOT NULL UNIQUE,
    prefix text NOT NULL,
    name text NOT NULL,
    scopes jsonb NOT NULL,
    test boolean NOT NULL,
    last_used_at timestamptz,
    expires_at timestamptz,
    created_at timestamptz NOT NULL,
    is_active boolean NOT NULL DEFAULT true
);
CREATE INDEX api_keys_user ON api_keys (user_id, id DESC);

-- Refresh tokens. Those that descend from one sign-in are a family, which a token used twice ends.
CREATE TABLE refresh_tokens (
    token_hash bytea PRIMARY KEY,
    family text NOT NULL,
    user_id text NOT NULL REFERENCES users (id),
    used_at timestamptz,
    expires_at timestamptz NOT NULL
);
CREATE INDEX refresh_tokens_family ON refresh_tokens (family);

CREATE TABLE audit_logs (
    id text PRIMARY KEY,
    user_id text,
    org_id text,
    action text NOT NULL,
    resource_type text NOT NULL,
    resource_id text NOT NULL,
    metadata jsonb NOT NULL DEFAULT '{}',
    ip_address inet,
    user_agent text NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX audit_logs_user ON audit_logs (user_id, created_at DESC);

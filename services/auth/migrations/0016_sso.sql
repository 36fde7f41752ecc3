-- Providers of organisations' own. `sealed_secret`: under the organisation's data key; empty: the client has none.
CREATE TABLE sso_connections (
    org_id text PRIMARY KEY REFERENCES organisations (id),
    issuer text NOT NULL,
    client_id text NOT NULL,
    sealed_secret bytea NOT NULL,
    default_role text NOT NULL,
    required boolean NOT NULL,
    revision bigint NOT NULL DEFAULT 1,
    updated_at timestamptz NOT NULL
);

-- Domains of mail that organisations say are theirs, and prove by a TXT record with `token`. Proved, a domain is one's.
CREATE TABLE sso_domains (
    org_id text NOT NULL REFERENCES organisations (id),
    domain text NOT NULL,
    token text NOT NULL,
    created_at timestamptz NOT NULL,
    verified_at timestamptz,
    PRIMARY KEY (org_id, domain)
);
CREATE UNIQUE INDEX sso_domains_verified ON sso_domains (domain) WHERE verified_at IS NOT NULL;
CREATE INDEX identities_provider ON identities (provider) WHERE provider LIKE 'org\_%';

-- Money that comes in from outside. A payment is a saga: its row says how far it got, so that a death at any step is
-- taken up again and charges nobody twice.
CREATE TABLE payment_customers (
    org_id text NOT NULL,
    provider text NOT NULL,
    ref text NOT NULL, -- the provider's name for the organisation
    created_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, provider),
    UNIQUE (provider, ref)
);

CREATE TABLE payment_methods (
    id text PRIMARY KEY,
    org_id text NOT NULL,
    provider text NOT NULL,
    ref text NOT NULL,
    brand text NOT NULL,
    last4 text NOT NULL,
    exp_month smallint NOT NULL,
    exp_year smallint NOT NULL,
    is_default boolean NOT NULL,
    detached_at timestamptz,  -- from here on it is charged no more
    forgotten_at timestamptz, -- and from here on the provider has forgotten it too
    created_at timestamptz NOT NULL,
    UNIQUE (provider, ref)
);
CREATE INDEX payment_methods_org ON payment_methods (org_id, id DESC) WHERE detached_at IS NULL;
CREATE UNIQUE INDEX payment_methods_default ON payment_methods (org_id, provider) WHERE is_default;
CREATE INDEX payment_methods_forgotten ON payment_methods (detached_at)
    WHERE detached_at IS NOT NULL AND forgotten_at IS NULL;

CREATE TABLE payments (
    id text PRIMARY KEY,
    org_id text NOT NULL,
    user_id text NOT NULL,    -- empty: nobody, it was due
    amount bigint NOT NULL CHECK (amount > 0 AND amount % 10000000 = 0), -- nanos, whole cents
    currency text NOT NULL,
    purpose text NOT NULL,    -- top_up, invoice, auto_top_up
    subject text NOT NULL,    -- what is paid, unique for each attempt: there is one payment of it
    status text NOT NULL,     -- pending, processing, requires_action, succeeded, failed
    provider text NOT NULL,
    provider_ref text UNIQUE, -- the provider's name for it, stored before any money moves
    method_ref text,          -- the card it was charged to, by the provider's name
    client_secret text,       -- while its owner has to prove who they are
    failure_code text,
    attempts int NOT NULL DEFAULT 0,
    next_attempt_at timestamptz, -- when the saga goes on; null: it has ended
    settled_at timestamptz,
    created_at timestamptz NOT NULL,
    UNIQUE (purpose, subject)
);
CREATE INDEX payments_org ON payments (org_id, id DESC);
CREATE INDEX payments_due ON payments (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
CREATE UNIQUE INDEX payments_one_auto_top_up ON payments (org_id)
    WHERE purpose = 'auto_top_up' AND next_attempt_at IS NOT NULL;

CREATE TABLE auto_top_ups (
    org_id text PRIMARY KEY,
    enabled boolean NOT NULL,
    threshold bigint NOT NULL, -- nanos
    amount bigint NOT NULL,    -- nanos
    failures int NOT NULL DEFAULT 0, -- one after the other
    next_attempt_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);

-- The provider of the sandbox: what a payment provider would keep on its side.
CREATE TABLE sandbox_objects (
    id text PRIMARY KEY,
    key text NOT NULL UNIQUE, -- the idempotency key it was made under
    kind text NOT NULL,       -- customer, setup_intent, payment_method, payment_intent, refund, account, transfer
    parent text NOT NULL,     -- whom or what it is about
    status text NOT NULL,
    cents bigint NOT NULL DEFAULT 0,
    code text NOT NULL DEFAULT '', -- the test card of a payment method, why a payment failed
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX sandbox_objects_parent ON sandbox_objects (parent, kind);

-- What the provider tells by itself, by event id: stored in one insert, handled by a task, in any order.
CREATE TABLE provider_events (
    id text PRIMARY KEY, -- evt_… of the provider
    type text NOT NULL,
    object_ref text NOT NULL, -- what it is about; its state is asked for, so that the order of events does not matter
    created_at timestamptz NOT NULL, -- at the provider
    received_at timestamptz NOT NULL,
    attempts int NOT NULL DEFAULT 0,
    next_attempt_at timestamptz, -- null: handled
    handled_at timestamptz
);
CREATE INDEX provider_events_due ON provider_events (next_attempt_at) WHERE next_attempt_at IS NOT NULL;

-- Until when all events were listed, webhooks or not.
CREATE TABLE provider_cursors (
    provider text PRIMARY KEY,
    through timestamptz NOT NULL
);

-- Money of a payment that goes back: refunds, and disputes of a card's owner. It is withheld from the wallet first; what
-- the wallet is short of is the platform's loss. Then it is paid, or returned to the wallet.
CREATE TABLE reversals (
    id text PRIMARY KEY,        -- rfd_… or dsp_…
    kind text NOT NULL,         -- refund, dispute
    payment_id text NOT NULL REFERENCES payments (id),
    org_id text NOT NULL,
    amount bigint NOT NULL CHECK (amount > 0), -- nanos
    taken bigint NOT NULL CHECK (taken >= 0 AND taken <= amount), -- of it, from the wallet
    status text NOT NULL,       -- pending, paid, returned
    reason text NOT NULL,
    subject text NOT NULL UNIQUE, -- the caller's idempotency key or the provider's name: there is one reversal of it
    provider_ref text UNIQUE,
    failure_code text,
    attempts int NOT NULL DEFAULT 0,
    next_attempt_at timestamptz, -- when the saga goes on; null: it does not, or somebody else does
    settled_at timestamptz,
    created_at timestamptz NOT NULL
);
CREATE INDEX reversals_payment ON reversals (payment_id);
CREATE INDEX reversals_due ON reversals (next_attempt_at) WHERE next_attempt_at IS NOT NULL;

ALTER TABLE sandbox_objects ADD COLUMN method text NOT NULL DEFAULT ''; -- the card of a payment

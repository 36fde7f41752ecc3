-- Keys that seal what belongs to one owner (an organisation), each wrapped under the installation's, whose name is
-- `under`. To delete an owner's is to make unreadable what they sealed.
CREATE TABLE data_keys (
    owner_id text NOT NULL,
    version integer NOT NULL,
    wrapped bytea NOT NULL,
    under text NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (owner_id, version)
);
CREATE INDEX data_keys_under ON data_keys (under);

-- Where organisations have events posted to. Of no types: of all.
CREATE TABLE webhook_endpoints (
    id text PRIMARY KEY,
    org_id text NOT NULL,
    url text NOT NULL,
    description text NOT NULL,
    event_types text[] NOT NULL,
    enabled boolean NOT NULL DEFAULT true,
    disabled_reason text NOT NULL DEFAULT '',
    sealed_secret bytea NOT NULL,
    previous_secret bytea, -- signs too until previous_until
    previous_until timestamptz,
    failures integer NOT NULL DEFAULT 0, -- in a row
    failing_since timestamptz,
    paused_until timestamptz,
    revision bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE INDEX webhook_endpoints_org ON webhook_endpoints (org_id, id);

-- What happened, as it is posted: the body's very characters, which signatures are of.
CREATE TABLE webhook_events (
    id text PRIMARY KEY,
    org_id text NOT NULL,
    type text NOT NULL,
    body text NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX webhook_events_created ON webhook_events (created_at);

-- An event on its way to an endpoint. `tries`: since it was made or asked for again, `attempts`: ever, which number
-- them. While a process sends it `due_at` is when another may, because that one has died.
CREATE TABLE webhook_deliveries (
    id text PRIMARY KEY,
    event_id text NOT NULL REFERENCES webhook_events (id) ON DELETE CASCADE,
    endpoint_id text NOT NULL REFERENCES webhook_endpoints (id) ON DELETE CASCADE,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'succeeded', 'failed')),
    once boolean NOT NULL DEFAULT false, -- not tried again
    tries integer NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    due_at timestamptz NOT NULL,
    begun_at timestamptz NOT NULL, -- when it was made or asked for again
    status_code integer NOT NULL DEFAULT 0,
    error text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL,
    ended_at timestamptz
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (endpoint_id, due_at) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_endpoint ON webhook_deliveries (endpoint_id, id);
CREATE INDEX webhook_deliveries_event ON webhook_deliveries (event_id);

CREATE TABLE webhook_attempts (
    delivery_id text NOT NULL REFERENCES webhook_deliveries (id) ON DELETE CASCADE,
    number integer NOT NULL,
    at timestamptz NOT NULL,
    duration_ms integer NOT NULL,
    status_code integer NOT NULL,
    error text NOT NULL,
    response text NOT NULL,
    PRIMARY KEY (delivery_id, number)
);

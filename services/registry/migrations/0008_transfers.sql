-- Addresses that models had before they moved. They lead to them until a new model has the address.
CREATE TABLE model_addresses (
    publisher text NOT NULL,
    name text NOT NULL,
    model_id text NOT NULL REFERENCES models (id),
    PRIMARY KEY (publisher, name)
);
CREATE INDEX model_addresses_model ON model_addresses (model_id);

-- Offers of models to other organisations. Of a model one is open.
CREATE TABLE model_transfers (
    id text PRIMARY KEY,
    model_id text NOT NULL REFERENCES models (id),
    from_org_id text NOT NULL,
    to_org_id text NOT NULL,
    organisation text NOT NULL, -- the handle of the one that it is offered to
    user_id text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    ended_at timestamptz
);
CREATE UNIQUE INDEX model_transfers_open ON model_transfers (model_id) WHERE ended_at IS NULL;
CREATE INDEX model_transfers_from ON model_transfers (from_org_id, id DESC) WHERE ended_at IS NULL;
CREATE INDEX model_transfers_to ON model_transfers (to_org_id, id DESC) WHERE ended_at IS NULL;

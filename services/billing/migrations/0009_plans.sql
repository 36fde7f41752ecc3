-- Plans, and subscriptions that go through periods. A subscription is to a plan, or to one publisher's model.
ALTER TABLE plans
    ADD COLUMN fee_ppm integer,  -- the platform's share of calls to the organisation's models; null: as the operator set
    ADD COLUMN trial_days integer NOT NULL DEFAULT 0,
    ADD COLUMN public boolean NOT NULL DEFAULT true;
INSERT INTO plans (id, name, monthly_nanos, fee_ppm, trial_days, public) VALUES
    ('pro', 'Pro', 20000000000, 100000, 14, true),
    ('enterprise', 'Enterprise', 0, NULL, 0, false); -- under terms of each organisation

ALTER TABLE subscriptions
    DROP CONSTRAINT subscriptions_org_id_key,
    ALTER COLUMN plan_id DROP NOT NULL,
    ADD COLUMN model_id text NOT NULL DEFAULT '', -- empty: to a plan
    ADD COLUMN model text NOT NULL DEFAULT '',
    ADD COLUMN publisher_org_id text NOT NULL DEFAULT '',
    ADD COLUMN price bigint NOT NULL DEFAULT 0,   -- nanos a month
    ADD COLUMN fee_ppm integer,  -- of a plan: as in plans; of a model: the platform's share of its fee
    ADD COLUMN anchor timestamptz, -- months are counted from here
    ADD COLUMN trial_end timestamptz,
    ADD COLUMN next_at timestamptz, -- when something ends; only of plans, with which models' periods go along
    ADD COLUMN cancel_at_period_end boolean NOT NULL DEFAULT false,
    ADD COLUMN canceled_at timestamptz;
UPDATE subscriptions SET current_period_start = date_trunc('second', current_period_start);
UPDATE subscriptions SET anchor = current_period_start, current_period_end = current_period_start + interval '1 month',
    next_at = current_period_start + interval '1 month';
ALTER TABLE subscriptions
    ALTER COLUMN anchor SET NOT NULL,
    ALTER COLUMN current_period_end SET NOT NULL,
    ADD CHECK ((plan_id IS NULL) = (model_id <> ''));
CREATE UNIQUE INDEX subscriptions_live ON subscriptions (org_id, model_id) WHERE status <> 'canceled';
CREATE INDEX subscriptions_due ON subscriptions (next_at) WHERE next_at IS NOT NULL;

-- What a model costs by the month.
CREATE TABLE model_offers (
    model_id text PRIMARY KEY,
    model text NOT NULL,
    publisher_org_id text NOT NULL,
    price bigint NOT NULL CHECK (price > 0), -- nanos
    updated_at timestamptz NOT NULL
);

-- What this service is to write down, or to erase, of a person (mercat.event.v1.PersonTaskRequested, serialized; null when
-- it is done, since it names them).
CREATE TABLE person_tasks (
    id text PRIMARY KEY,
    request bytea,
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    created_at timestamptz NOT NULL
);
CREATE INDEX person_tasks_due ON person_tasks (next_attempt_at) WHERE next_attempt_at IS NOT NULL;

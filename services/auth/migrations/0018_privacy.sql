-- What people asked for of their own data: exports and erasures, which every service has a part in. `request`: the event
-- that asked (mercat.event.v1.PersonTaskRequested). `sealed_marks`: what names a person, under their data key, by which an
-- erasure finds their last traces. Both are null once it is finished.
CREATE TABLE person_requests (
    id text PRIMARY KEY,
    kind smallint NOT NULL, -- as in the event
    user_id text NOT NULL,
    request bytea,
    sealed_marks bytea,
    created_at timestamptz NOT NULL,
    finished_at timestamptz,
    expires_at timestamptz
);
CREATE INDEX person_requests_user ON person_requests (user_id, id DESC);
CREATE INDEX person_requests_unfinished ON person_requests (id) WHERE finished_at IS NULL;
CREATE INDEX person_requests_expiry ON person_requests (expires_at) WHERE expires_at IS NOT NULL;

-- Parts that are done. `done`: mercat.event.v1.PersonTaskDone, serialized.
CREATE TABLE person_parts (
    request_id text NOT NULL REFERENCES person_requests (id) ON DELETE CASCADE,
    service text NOT NULL,
    done bytea NOT NULL,
    PRIMARY KEY (request_id, service)
);

-- Handles of those who were erased, as hashes: nobody is to take the place of who is trusted.
CREATE TABLE retired_handles (
    handle_hash bytea PRIMARY KEY,
    retired_at timestamptz NOT NULL
);

-- What people agreed to, and took back: every time a row. The newest of a kind is how it stands.
CREATE TABLE consents (
    id text PRIMARY KEY,
    user_id text NOT NULL REFERENCES users (id),
    kind smallint NOT NULL, -- mercat.auth.v1.Consent.Kind
    version text NOT NULL,  -- of the text; empty: there is none
    granted boolean NOT NULL,
    recorded_at timestamptz NOT NULL
);
CREATE INDEX consents_user ON consents (user_id, id DESC);

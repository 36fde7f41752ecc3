-- What calls counted in an hour or a day, as corrected. `meter` is one of their units, or cost_nanos or latency_us, which
-- every call has. Made again from the records whenever those of an hour change.
CREATE TABLE usage_rollups (
    span text NOT NULL, -- hour, day
    start timestamptz NOT NULL,
    org_id text NOT NULL,
    publisher_org_id text NOT NULL,
    model text NOT NULL,
    meter text NOT NULL,
    calls bigint NOT NULL, -- that counted the meter
    total bigint NOT NULL,
    most bigint NOT NULL,  -- of one call
    PRIMARY KEY (span, start, org_id, publisher_org_id, model, meter)
);
CREATE INDEX usage_rollups_org ON usage_rollups (org_id, span, start);
CREATE INDEX usage_rollups_publisher ON usage_rollups (publisher_org_id, span, start);

-- Hours before `through` are rolled up, but for those that are stale. Records before `kept_from` are not kept.
CREATE TABLE rollup_progress (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    through timestamptz NOT NULL,
    kept_from timestamptz NOT NULL
);
INSERT INTO rollup_progress VALUES (true, '2000-01-01 UTC', '2000-01-01 UTC');

-- Records of hours that are not kept any more, which came late and are added to their rollups.
CREATE TABLE late_records (request_id text PRIMARY KEY COLLATE "C");

-- Each transaction adds rows of its own and takes away only those it sees: an hour whose records change while it is rolled
-- up is still stale afterwards.
CREATE TABLE stale_hours (hour timestamptz NOT NULL);
CREATE INDEX stale_hours_hour ON stale_hours (hour);

-- Late records and corrections, whoever inserts them. `through` is moved under a lock that no insert is under way behind.
CREATE FUNCTION note_stale_hours() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO stale_hours SELECT DISTINCT date_trunc('hour', a.timestamp, 'UTC') FROM added a
    WHERE a.timestamp < (SELECT p.through FROM rollup_progress p);
    RETURN NULL;
END $$;
CREATE TRIGGER stale_hours AFTER INSERT ON usage_records REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION note_stale_hours();

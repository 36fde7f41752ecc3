ALTER TABLE listings ADD COLUMN trend double precision NOT NULL DEFAULT 0;

-- Published versions of listed models, for those who follow their publishers.
CREATE TABLE publications (
    model text NOT NULL REFERENCES listings ON DELETE CASCADE ON UPDATE CASCADE,
    version text NOT NULL,
    version_id text NOT NULL COLLATE "C",
    publisher text NOT NULL,
    published_at timestamptz NOT NULL,
    PRIMARY KEY (model, version)
);
CREATE INDEX publications_publisher ON publications (publisher, published_at DESC);

CREATE TABLE collections (
    id text PRIMARY KEY COLLATE "C",
    org_id text NOT NULL,
    title text NOT NULL,
    description text NOT NULL,
    curated boolean NOT NULL, -- of the platform, for all
    revision bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE INDEX collections_org ON collections (org_id, id DESC);
CREATE INDEX collections_curated ON collections (id DESC) WHERE curated;

CREATE TABLE collection_models (
    collection_id text NOT NULL REFERENCES collections ON DELETE CASCADE,
    model text NOT NULL,
    number bigint GENERATED ALWAYS AS IDENTITY,
    PRIMARY KEY (collection_id, model)
);

CREATE TABLE favourites (
    org_id text NOT NULL,
    model text NOT NULL,
    number bigint GENERATED ALWAYS AS IDENTITY,
    PRIMARY KEY (org_id, model)
);

CREATE TABLE follows (
    org_id text NOT NULL,
    publisher text NOT NULL,
    PRIMARY KEY (org_id, publisher)
);

-- Organisations whose calls make no recommendations.
CREATE TABLE discovery_preferences (
    org_id text PRIMARY KEY,
    recommendations_off boolean NOT NULL
);

-- Which models are called by the same accounts; made anew now and then.
CREATE TABLE called_together (
    model text NOT NULL,
    other text NOT NULL,
    accounts integer NOT NULL,
    score double precision NOT NULL,
    PRIMARY KEY (model, other)
);

-- The tables that relays share. `version` is that of the commit which wrote the row (see store.rs, `Stage`).

CREATE SCHEMA IF NOT EXISTS unsaid;

CREATE TABLE unsaid.meta (
    layout bigint NOT NULL
);

-- One row for each task. Whoever changes a task holds its row's lock from the first look to the commit.
CREATE TABLE unsaid.tasks (
    task text PRIMARY KEY,
    version bigint NOT NULL,
    nonce bigint NOT NULL,
    head text,
    manifest text,
    memory_kind text,
    memory bytea
);
ALTER TABLE unsaid.tasks ALTER COLUMN memory SET STORAGE EXTERNAL;

-- The last commits of each task: a relay that finds the one it saw last among them has seen all before it.
CREATE TABLE unsaid.commits (
    task text NOT NULL,
    version bigint NOT NULL,
    nonce bigint NOT NULL,
    PRIMARY KEY (task, version)
);

-- Little-endian i64s of the open round.
CREATE TABLE unsaid.sums (
    task text PRIMARY KEY,
    steps bytea NOT NULL
);
-- Compressing numbers that look like noise takes time and wins nothing.
ALTER TABLE unsaid.sums ALTER COLUMN steps SET STORAGE EXTERNAL;

-- Little-endian i32s of each update of the open round, where its rule needs them.
CREATE TABLE unsaid.updates (
    task text NOT NULL,
    round bigint NOT NULL,
    id bytea NOT NULL,
    coordinates bytea NOT NULL,
    version bigint NOT NULL,
    PRIMARY KEY (task, round, id)
);
ALTER TABLE unsaid.updates ALTER COLUMN coordinates SET STORAGE EXTERNAL;

CREATE TABLE unsaid.check_ins (
    task text NOT NULL,
    round bigint NOT NULL,
    client bytea NOT NULL,
    version bigint NOT NULL,
    PRIMARY KEY (task, round, client)
);
CREATE INDEX check_ins_by_version ON unsaid.check_ins (task, version);

-- Both keys say again what the round machine decides: an update is counted once, and a client once in a round.
CREATE TABLE unsaid.counted (
    task text NOT NULL,
    round bigint NOT NULL,
    id bytea NOT NULL,
    client bytea NOT NULL,
    digest bytea NOT NULL,
    version bigint NOT NULL,
    PRIMARY KEY (task, id),
    UNIQUE (task, round, client)
);
CREATE INDEX counted_by_version ON unsaid.counted (task, version);

CREATE TABLE unsaid.models (
    task text NOT NULL,
    hash bytea NOT NULL,
    bytes bytea NOT NULL,
    PRIMARY KEY (task, hash)
);
ALTER TABLE unsaid.models ALTER COLUMN bytes SET STORAGE EXTERNAL;

CREATE TABLE unsaid.rounds (
    task text NOT NULL,
    round bigint NOT NULL,
    model bytea NOT NULL,
    metrics text NOT NULL,
    version bigint NOT NULL,
    PRIMARY KEY (task, round)
);
CREATE INDEX rounds_by_version ON unsaid.rounds (task, version);

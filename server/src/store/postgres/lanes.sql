-- What layout 4 adds to layout 3, in place of one sum for each task.

-- The open round's sum, in parts: of each relay that counts. A relay writes its own before it holds the task's row, and nobody else's;
-- whoever closes the round reads all of them. As blocks (see store/blocks.rs).
CREATE TABLE unsaid.lanes (
    task text NOT NULL,
    round bigint NOT NULL,
    lane bigint NOT NULL,
    updates bigint NOT NULL,
    steps bytea NOT NULL,
    PRIMARY KEY (task, round, lane)
);
-- Compressing numbers that look like noise takes time and wins nothing.
ALTER TABLE unsaid.lanes ALTER COLUMN steps SET STORAGE EXTERNAL;

-- Events and snapshots of the embedded database. Version 1 of the schema: the tables have the names and columns of
-- pekko-persistence-jdbc 1.1, which wrote them first.

CREATE TABLE IF NOT EXISTS "event_journal" (
    "ordering" BIGINT UNIQUE NOT NULL AUTO_INCREMENT,
    "deleted" BOOLEAN DEFAULT false NOT NULL,
    "persistence_id" VARCHAR(255) NOT NULL,
    "sequence_number" BIGINT NOT NULL,
    "writer" VARCHAR NOT NULL,
    "write_timestamp" BIGINT NOT NULL,
    "adapter_manifest" VARCHAR NOT NULL,
    "event_payload" BLOB NOT NULL,
    "event_ser_id" INTEGER NOT NULL,
    "event_ser_manifest" VARCHAR NOT NULL,
    "meta_payload" BLOB,
    "meta_ser_id" INTEGER,
    "meta_ser_manifest" VARCHAR,
    PRIMARY KEY ("persistence_id", "sequence_number")
);

-- CRC-32C of the row; none in rows of earlier builds.
ALTER TABLE "event_journal" ADD COLUMN IF NOT EXISTS "checksum" BIGINT;

CREATE TABLE IF NOT EXISTS "snapshot" (
    "persistence_id" VARCHAR(255) NOT NULL,
    "sequence_number" BIGINT NOT NULL,
    "created" BIGINT NOT NULL,
    "snapshot_ser_id" INTEGER NOT NULL,
    "snapshot_ser_manifest" VARCHAR NOT NULL,
    "snapshot_payload" BLOB NOT NULL,
    "meta_ser_id" INTEGER,
    "meta_ser_manifest" VARCHAR,
    "meta_payload" BLOB,
    PRIMARY KEY ("persistence_id", "sequence_number")
);

ALTER TABLE "snapshot" ADD COLUMN IF NOT EXISTS "checksum" BIGINT;

-- Events up to "up_to" were deleted; all later ones must be there. "replaced": a snapshot at "up_to" or later replaces
-- them; otherwise everything of the entity was deleted. A database of an earlier build is taken as it is.
CREATE TABLE IF NOT EXISTS "deleted_events" (
    "persistence_id" VARCHAR(255) PRIMARY KEY,
    "up_to" BIGINT NOT NULL,
    "replaced" BOOLEAN NOT NULL
) AS SELECT "persistence_id", COALESCE(MAX(CASE WHEN "deleted" THEN "sequence_number" END), MIN("sequence_number") - 1),
    FALSE FROM "event_journal" GROUP BY "persistence_id";

-- One row per file or folder that a version made or took over and that is not a table.
-- key: dataset_version, kind, name
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS artifacts (
  dataset_version VARCHAR NOT NULL,
  kind VARCHAR NOT NULL,                     -- sae, centroids, probe, export, report
  name VARCHAR NOT NULL,                     -- which one of its kind: the layer, the trainer
  digest VARCHAR NOT NULL,                   -- SHA-256 recorded when it was made
  path VARCHAR NOT NULL,                     -- below the home
  n_bytes UBIGINT NOT NULL,
  made_by VARCHAR NOT NULL,                  -- the asset that made it
  intact BOOLEAN NOT NULL                    -- its bytes on disk still have the recorded digest
);

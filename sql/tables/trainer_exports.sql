-- One row per trainer and arm that the current manifest was written for.
-- key: dataset_version, manifest_id, trainer, arm
-- write: append
CREATE TABLE IF NOT EXISTS trainer_exports (
  dataset_version VARCHAR NOT NULL,
  manifest_id VARCHAR NOT NULL,
  trainer VARCHAR NOT NULL,
  arm VARCHAR NOT NULL,
  path VARCHAR NOT NULL,                     -- folder below the home
  n_rows UBIGINT NOT NULL,
  n_steps UINTEGER NOT NULL,
  order_digest VARCHAR NOT NULL,             -- SHA-256 over the ordered prompt ids
  digest VARCHAR NOT NULL                    -- SHA-256 over the files of the folder
);

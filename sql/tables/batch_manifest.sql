-- One row per slot of a batch: the order of every arm. Immutable: a manifest is named after its rows, so the same name means the same rows.
-- key: manifest_id, arm, epoch, step, slot
-- write: replace manifest_id
CREATE TABLE IF NOT EXISTS batch_manifest (
  manifest_id VARCHAR NOT NULL,
  dataset_version VARCHAR NOT NULL,
  arm VARCHAR NOT NULL,                      -- clustered, balanced, or a control
  epoch UINTEGER NOT NULL,                   -- from 0
  step UINTEGER NOT NULL,                    -- batch within the epoch, from 0
  slot UINTEGER NOT NULL,                    -- place within the batch, from 0
  prompt_id VARCHAR NOT NULL,
  cluster_id UINTEGER NOT NULL,
  difficulty DOUBLE NOT NULL,
  is_padding BOOLEAN NOT NULL                -- repeats a prompt to fill the last batch
);

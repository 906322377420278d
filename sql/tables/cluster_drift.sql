-- One row per cluster of a version or of its parent: what has become of it.
-- key: dataset_version, cluster_id
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS cluster_drift (
  dataset_version VARCHAR NOT NULL,
  cluster_id UINTEGER NOT NULL,
  fate VARCHAR NOT NULL,                     -- kept, new or gone
  n_prompts_before UBIGINT NOT NULL,         -- its prompts in the parent
  n_prompts_after UBIGINT NOT NULL,
  fraction_before DOUBLE NOT NULL,           -- share of the parent's prompts
  fraction_after DOUBLE NOT NULL,
  fraction_shift DOUBLE NOT NULL,            -- after - before
  n_common UBIGINT NOT NULL,                 -- its prompts in the parent that are in both versions
  n_moved UBIGINT NOT NULL,                  -- those of them that are in another cluster now
  centroid_shift DOUBLE                      -- 1 - cosine to the parent's centroid; null for new and gone ones
);

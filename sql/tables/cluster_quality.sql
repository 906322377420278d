-- One row per measure of how good a version's clustering is.
-- key: dataset_version, measure
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS cluster_quality (
  dataset_version VARCHAR NOT NULL,
  measure VARCHAR NOT NULL,                  -- stability, silhouette, balance, largest_fraction, tiny_fraction
  value DOUBLE,                              -- null where it takes more clusters or prompts
  threshold DOUBLE NOT NULL,                 -- on the wrong side of it a person should look
  n_prompts UBIGINT NOT NULL,                -- prompts it was measured on
  verdict VARCHAR NOT NULL,                  -- good, watch or not_measured
  explanation VARCHAR NOT NULL               -- the measure in words, with its figures
);

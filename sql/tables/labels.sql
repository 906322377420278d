-- One row per prompt and label: its observations folded into one value.
-- key: dataset_version, prompt_id, label
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS labels (
  dataset_version VARCHAR NOT NULL,
  prompt_id VARCHAR NOT NULL,
  label VARCHAR NOT NULL,
  value DOUBLE NOT NULL,                     -- mean of the observations
  n_observations UINTEGER NOT NULL,
  spread DOUBLE NOT NULL                     -- largest minus smallest observation; above 0 the observations disagree
);

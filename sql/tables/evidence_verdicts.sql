-- One row per label: whether the SAE is worth using for it, in a plain sentence.
-- key: dataset_version, label
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS evidence_verdicts (
  dataset_version VARCHAR NOT NULL,
  label VARCHAR NOT NULL,
  verdict VARCHAR NOT NULL,                  -- use_sae, dense_is_as_good, use_dense, cheap_is_as_good, do_not_use, not_measured
  best_predictor VARCHAR,                    -- the one with the highest value; of equal ones the simpler
  n_rows UBIGINT NOT NULL,                   -- labelled training prompts
  explanation VARCHAR NOT NULL               -- the verdict in words, with its figures
);

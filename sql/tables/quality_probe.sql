-- One row per probe and set of rows: how well the probe predicts correct outcomes.
-- key: dataset_version, probe, rows
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS quality_probe (
  dataset_version VARCHAR NOT NULL,
  probe VARCHAR NOT NULL,                    -- logistic, or none where it was skipped
  rows VARCHAR NOT NULL,                     -- held_out (cross-validated) or fitted
  n_rows UBIGINT NOT NULL,                   -- labelled prompts measured on
  base_rate DOUBLE,                          -- share of correct outcomes among them
  auroc DOUBLE,                              -- area under the ROC curve; 0.5 is chance
  brier DOUBLE,                              -- mean squared error of the probability
  penalty DOUBLE,                            -- inverse regularisation strength chosen inside the folds
  digest VARCHAR,                            -- SHA-256 of the file with its weights
  path VARCHAR,                              -- that file, below the home
  explanation VARCHAR NOT NULL               -- what it is, or why it was skipped and how to supply what is missing
);

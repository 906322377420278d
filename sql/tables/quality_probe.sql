-- One row per probe and set of rows: how well the probe predicts correct outcomes.
-- key: dataset_version, probe, rows
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS quality_probe (
  dataset_version VARCHAR NOT NULL,
  probe VARCHAR NOT NULL,                    -- logistic, ridge or mlp; none where it was skipped
  rows VARCHAR NOT NULL,                     -- held_out (cross-validated) or fitted
  predictor VARCHAR NOT NULL,                -- what it was learned from, as signal_evidence names it
  n_rows UBIGINT NOT NULL,                   -- labelled prompts measured on
  n_observations UBIGINT NOT NULL,           -- observations of the label when it was trained; more by now: it is stale
  base_rate DOUBLE,                          -- share of correct outcomes among them
  auroc DOUBLE,                              -- area under the ROC curve; 0.5 is chance
  auroc_low DOUBLE,                          -- lower end of its 95% bootstrap interval
  auroc_high DOUBLE,                         -- upper end
  brier DOUBLE,                              -- mean squared error of the calibrated probability
  calibration VARCHAR,                       -- platt (fewer labels) or isotonic, learned from out-of-fold scores
  calibration_error DOUBLE,                  -- mean distance of predicted and observed shares in probe_calibration
  penalty DOUBLE,                            -- strength of the regularisation; what it is depends on the probe
  candidates VARCHAR,                        -- JSON: AUROC of each kind in inner folds; null unless 'best' was asked for
  encoders VARCHAR,                          -- ids of what makes its predictor: encoders, readings, or a sentence encoder
  digest VARCHAR,                            -- SHA-256 of the folder with its weights
  path VARCHAR,                              -- that folder, below the home
  explanation VARCHAR NOT NULL               -- what it is, or why it was skipped and how to supply what is missing
);

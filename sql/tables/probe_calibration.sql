-- One row per bin of the calibration curve: what the probe predicted and what came of it, on prompts not trained on.
-- key: dataset_version, probe, bin
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS probe_calibration (
  dataset_version VARCHAR NOT NULL,
  probe VARCHAR NOT NULL,                    -- logistic, ridge or mlp
  bin UINTEGER NOT NULL,                     -- counted from 0, lowest probabilities first; bins hold equally many rows
  n_rows UBIGINT NOT NULL,                   -- labelled prompts in it
  predicted DOUBLE NOT NULL,                 -- mean calibrated probability of a correct outcome
  observed DOUBLE NOT NULL,                  -- share of correct outcomes
  observed_low DOUBLE NOT NULL,              -- lower end of its 95% interval (Wilson)
  observed_high DOUBLE NOT NULL              -- upper end
);

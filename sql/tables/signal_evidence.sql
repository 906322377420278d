-- One row per label and predictor: how well the predictor foretells the label on prompts that it was not fitted to.
-- key: dataset_version, label, predictor
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS signal_evidence (
  dataset_version VARCHAR NOT NULL,
  label VARCHAR NOT NULL,
  kind VARCHAR NOT NULL,                     -- numeric, binary or class
  predictor VARCHAR NOT NULL,                -- sae_max, dense_mean, length, tfidf, ...
  n_rows UBIGINT NOT NULL,                   -- labelled training prompts measured on, the same for all predictors
  measure VARCHAR NOT NULL,                  -- spearman, auroc or macro_f1
  value DOUBLE,                              -- that, cross-validated; null where it is not defined
  low DOUBLE,                                -- 95% interval by bootstrap over prompts
  high DOUBLE,
  second_measure VARCHAR NOT NULL,           -- r2, brier or accuracy
  second_value DOUBLE,
  given_length DOUBLE,                       -- partial rank correlation with the label, token count held fixed
  over_length DOUBLE,                        -- value minus that of length, on the same prompts, with its interval
  over_length_low DOUBLE,
  over_length_high DOUBLE,
  over_dense DOUBLE,                         -- value minus that of the mean hidden state, with its interval
  over_dense_low DOUBLE,
  over_dense_high DOUBLE,
  behind_best DOUBLE,                        -- value of the best predictor minus this one; 0 for the best, null for metadata
  behind_best_margin DOUBLE                  -- how far behind one that is as good may be by chance, with 95% confidence over all
);

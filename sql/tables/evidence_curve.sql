-- One row per label, predictor and label budget: how well so many labels are put to use.
-- key: dataset_version, label, predictor, n_labels
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS evidence_curve (
  dataset_version VARCHAR NOT NULL,
  label VARCHAR NOT NULL,
  predictor VARCHAR NOT NULL,
  n_labels UBIGINT NOT NULL,                 -- labelled prompts learned from
  measure VARCHAR NOT NULL,                  -- spearman, auroc or macro_f1
  value DOUBLE                               -- on prompts that were not learned from
);

-- One row per version: how well its probe predicts outcomes of prompts that it was not trained on, beside the parent's.
CREATE OR REPLACE VIEW probe_over_versions AS
SELECT
  h.dataset_version,
  v.registered_at,
  v.parent,
  h.probe,
  h.predictor,
  h.n_rows,
  h.base_rate,
  h.auroc,
  h.auroc_low,
  h.auroc_high,
  f.auroc - h.auroc AS overfitting,          -- AUROC on the prompts that it was fitted to, minus that on others
  h.brier,
  h.calibration_error,
  h.auroc - before.auroc AS auroc_since_parent,
  h.explanation
FROM quality_probe h
JOIN versions v USING (dataset_version)
LEFT JOIN quality_probe f
  ON f.dataset_version = h.dataset_version AND f.probe = h.probe AND f."rows" = 'fitted'
LEFT JOIN quality_probe before
  ON before.dataset_version = v.parent AND before."rows" = 'held_out'
WHERE h."rows" = 'held_out'
ORDER BY v.registered_at, h.dataset_version;

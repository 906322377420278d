-- One row per version with a parent and measure: how far it has moved from the parent, and how near to its limit that is.
CREATE OR REPLACE VIEW drift_over_versions AS
SELECT
  d.dataset_version,
  v.registered_at,
  v.parent,
  d.measure,
  d."value",
  d.threshold,
  d."value" / nullif(d.threshold, 0) AS share_of_threshold,
  d.verdict,
  d.explanation
FROM version_drift d
JOIN versions v USING (dataset_version)
WHERE v.parent IS NOT NULL
ORDER BY v.registered_at, d.dataset_version, d.measure;

-- One row per version and layer: features that are dead or rare on its prompts, and those that differ from the parent.
CREATE OR REPLACE VIEW feature_use AS
WITH sizes AS (
  SELECT dataset_version, count(*) AS n_prompts FROM prompts GROUP BY dataset_version
), parents AS (
  -- features can be held against the parent's where both have the very same SAE
  SELECT v.dataset_version, w.layer, v.parent
  FROM versions v
  JOIN sae_weights w ON w.dataset_version = v.dataset_version
  JOIN sae_weights before ON before.dataset_version = v.parent AND before.layer = w.layer AND before.digest = w.digest
)
SELECT
  d.dataset_version,
  v.registered_at,
  d.layer,
  s.n_prompts,
  count(*) AS n_features,
  count(*) FILTER (d.n_prompts = 0) AS n_dead,
  count(*) FILTER (d.n_prompts = 0) / count(*) AS dead_fraction,
  -- rare: in less than one prompt of a thousand, or in a single one
  count(*) FILTER (d.n_prompts BETWEEN 1 AND greatest(1, s.n_prompts / 1000)) AS n_rare,
  count(*) FILTER (d.n_prompts BETWEEN 1 AND greatest(1, s.n_prompts / 1000)) / count(*) AS rare_fraction,
  any_value(p.parent) AS compared_with,
  CASE WHEN any_value(p.parent) IS NOT NULL
    THEN count(*) FILTER (d.n_prompts = 0 AND before.n_prompts > 0) END AS n_fell_silent,
  CASE WHEN any_value(p.parent) IS NOT NULL
    THEN count(*) FILTER (d.n_prompts > 0 AND before.n_prompts = 0) END AS n_woke_up
FROM feature_density d
JOIN versions v USING (dataset_version)
JOIN sizes s USING (dataset_version)
LEFT JOIN parents p ON p.dataset_version = d.dataset_version AND p.layer = d.layer
LEFT JOIN feature_density before
  ON before.dataset_version = p.parent AND before.layer = d.layer AND before.latent = d.latent
GROUP BY d.dataset_version, v.registered_at, d.layer, s.n_prompts
ORDER BY v.registered_at, d.dataset_version, d.layer;

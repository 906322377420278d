-- One row per version: the numbers by which versions are held against each other.
CREATE OR REPLACE VIEW version_measures AS
SELECT
  v.dataset_version,
  v.parent,
  v.registered_at,
  p.n_prompts,
  u.dead_fraction,                           -- of all layers' features
  u.rare_fraction,
  b.n_clusters,
  b.balance,
  b.largest_fraction,
  b.stability,
  q.auroc,
  q.auroc_low,
  q.auroc_high,
  d.proxy_spearman,                          -- of the learned proxy with the label, on held-out prompts
  t.furthest_measure,                        -- the measure of drift that is nearest to its limit or furthest beyond
  t.share_of_threshold
FROM versions v
LEFT JOIN (SELECT dataset_version, count(*) AS n_prompts FROM prompts GROUP BY dataset_version) p USING (dataset_version)
LEFT JOIN (
  SELECT
    dataset_version,
    sum(n_dead) / sum(n_features) AS dead_fraction,
    sum(n_rare) / sum(n_features) AS rare_fraction
  FROM feature_use GROUP BY dataset_version
) u USING (dataset_version)
LEFT JOIN cluster_balance b USING (dataset_version)
LEFT JOIN (
  SELECT
    dataset_version,
    max(auroc) AS auroc,
    arg_max(auroc_low, auroc) AS auroc_low,
    arg_max(auroc_high, auroc) AS auroc_high
  FROM probe_over_versions GROUP BY dataset_version
) q USING (dataset_version)
LEFT JOIN (
  SELECT dataset_version, max(spearman) AS proxy_spearman
  FROM difficulty_proxy WHERE score_name = 'proxy' AND "rows" = 'held_out' GROUP BY dataset_version
) d USING (dataset_version)
LEFT JOIN (
  SELECT
    dataset_version,
    arg_max(measure, share_of_threshold) AS furthest_measure,
    max(share_of_threshold) AS share_of_threshold
  FROM drift_over_versions GROUP BY dataset_version
) t USING (dataset_version);

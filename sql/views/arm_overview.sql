-- One row per manifest, arm and epoch: its size and how diverse and how steep it is.
CREATE OR REPLACE VIEW arm_overview AS
SELECT
  dataset_version, manifest_id, arm, epoch,
  count(*) AS n_steps,
  sum(n_prompts) AS n_prompts,
  avg(cluster_entropy) AS mean_cluster_entropy,
  avg(feature_overlap) AS mean_feature_overlap,
  corr(step, difficulty_p50) AS difficulty_trend
FROM batch_metrics
GROUP BY dataset_version, manifest_id, arm, epoch;

-- One row per batch of a manifest.
-- key: manifest_id, arm, epoch, step
-- write: replace manifest_id
CREATE TABLE IF NOT EXISTS batch_metrics (
  manifest_id VARCHAR NOT NULL,
  dataset_version VARCHAR NOT NULL,
  arm VARCHAR NOT NULL,
  epoch UINTEGER NOT NULL,
  step UINTEGER NOT NULL,
  n_prompts UINTEGER NOT NULL,
  n_clusters UINTEGER NOT NULL,
  cluster_entropy DOUBLE NOT NULL,           -- nats
  feature_overlap DOUBLE,                    -- mean Jaccard overlap of active features over pairs; null if not sampled
  difficulty_p10 DOUBLE NOT NULL,
  difficulty_p50 DOUBLE NOT NULL,
  difficulty_p90 DOUBLE NOT NULL,
  mean_quality DOUBLE                        -- null without a probe
);

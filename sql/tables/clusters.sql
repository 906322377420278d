-- One row per cluster of a version.
-- key: dataset_version, cluster_id
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS clusters (
  dataset_version VARCHAR NOT NULL,
  cluster_id UINTEGER NOT NULL,              -- by size, largest first
  n_prompts UBIGINT NOT NULL,
  prompt_fraction DOUBLE NOT NULL,
  mean_similarity DOUBLE NOT NULL,           -- cosine of its prompts to its centroid
  top_features UINTEGER[] NOT NULL,          -- features that set it apart, strongest first
  top_words VARCHAR[] NOT NULL,              -- words that set it apart, strongest first
  exemplars VARCHAR[] NOT NULL,              -- ids of the prompts nearest to the centroid
  top_topic VARCHAR,                         -- most frequent topic, where topics are known
  top_topic_fraction DOUBLE,
  centroids_digest VARCHAR NOT NULL,         -- SHA-256 of the file with all centroids
  centroids_path VARCHAR NOT NULL            -- that file, below the home
);

-- One row per cluster of a version: its size, and the features, tokens and words that set it apart.
-- key: dataset_version, cluster_id
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS clusters (
  dataset_version VARCHAR NOT NULL,
  cluster_id UINTEGER NOT NULL,              -- the parent's id where it continues one; new ones by size, largest first
  n_prompts UBIGINT NOT NULL,
  prompt_fraction DOUBLE NOT NULL,
  mean_similarity DOUBLE NOT NULL,           -- cosine of its prompts to its centroid
  top_features UINTEGER[] NOT NULL,          -- features that set it apart, strongest first
  firing_tokens VARCHAR[] NOT NULL,          -- of each of top_features the tokens at which it is strongest, most frequent first
  top_words VARCHAR[] NOT NULL,              -- words that set it apart, strongest first
  exemplars VARCHAR[] NOT NULL,              -- ids of the prompts nearest to the centroid
  top_topic VARCHAR,                         -- most frequent topic, where topics are known
  top_topic_fraction DOUBLE,
  centroids_digest VARCHAR NOT NULL,         -- SHA-256 of the file with all centroids
  centroids_path VARCHAR NOT NULL,           -- that file, below the home
  parent_digest VARCHAR,                     -- centroids_digest of the parent's clusters that these continue; null for a fresh start
  start VARCHAR NOT NULL                     -- in words what the clusters started from, and why
);

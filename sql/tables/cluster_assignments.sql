-- One row per prompt: its cluster, and how near its centroid it lies.
-- key: dataset_version, prompt_id
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS cluster_assignments (
  dataset_version VARCHAR NOT NULL,
  prompt_id VARCHAR NOT NULL,
  cluster_id UINTEGER NOT NULL,
  similarity DOUBLE NOT NULL                 -- cosine to the cluster's centroid
);

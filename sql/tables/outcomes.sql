-- One row per prompt that the policy answered: how often it was right. Empty for a version without [outcomes].
-- key: dataset_version, prompt_id
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS outcomes (
  dataset_version VARCHAR NOT NULL,
  prompt_id VARCHAR NOT NULL,
  cluster_id UINTEGER NOT NULL,              -- the cluster that it was drawn from
  split VARCHAR NOT NULL,                    -- train or evaluation
  pass_rate DOUBLE NOT NULL,                 -- mean score of its rollouts, 0 to 1
  n_rollouts UINTEGER NOT NULL,
  n_truncated UINTEGER NOT NULL,             -- rollouts that were cut off
  mean_tokens DOUBLE NOT NULL,               -- tokens of an answer
  policy_digest VARCHAR NOT NULL,
  verifier VARCHAR NOT NULL
);

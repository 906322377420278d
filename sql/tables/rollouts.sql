-- One row per answer of the policy: a prompt and the number of the sample. Empty for a version without [outcomes].
-- key: dataset_version, prompt_id, sample
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS rollouts (
  dataset_version VARCHAR NOT NULL,
  prompt_id VARCHAR NOT NULL,
  sample UINTEGER NOT NULL,                  -- counted from 0
  rollout_id VARCHAR NOT NULL,               -- hash of sampling, prompt and sample; what it was drawn from
  completion VARCHAR NOT NULL,               -- what the policy wrote, without special tokens
  score DOUBLE NOT NULL,                     -- of the verifier, 0 to 1
  n_tokens UINTEGER NOT NULL,                -- tokens that it wrote, the one that ends the answer included
  is_truncated BOOLEAN NOT NULL,             -- it did not end within outcomes.max_new_tokens
  sampling_id VARCHAR NOT NULL,              -- digest of policy, seed, template and sampling; versions with the same share rows
  policy_digest VARCHAR NOT NULL,            -- of the policy's files
  verifier VARCHAR NOT NULL,                 -- what scored it
  engine VARCHAR NOT NULL,                   -- transformers or vllm
  made_at TIMESTAMP NOT NULL                 -- UTC, when it was sampled
);

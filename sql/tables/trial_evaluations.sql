-- One row per training and evaluated step: how many held-out prompts the policy answers right by then. Empty for a version without [trial].
-- key: dataset_version, arm, seed, step
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS trial_evaluations (
  dataset_version VARCHAR NOT NULL,
  arm VARCHAR NOT NULL,                      -- the order that it was trained in
  seed UINTEGER NOT NULL,                    -- of what is sampled, and of the order where chance has a part in it
  step UINTEGER NOT NULL,                    -- optimizer steps so far; 0 before the first
  accuracy DOUBLE NOT NULL,                  -- share of the held-out prompts answered right, 0 to 1
  n_prompts UINTEGER NOT NULL,               -- held-out prompts
  seconds DOUBLE NOT NULL,                   -- of training up to there, evaluations left out
  trial_id VARCHAR NOT NULL                  -- names the manifest, the policy and all settings
);

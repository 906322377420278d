-- One row per arm of a trial: whether training in its order takes fewer steps than in a shuffled one.
-- key: dataset_version, arm
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS trial_summary (
  dataset_version VARCHAR NOT NULL,
  arm VARCHAR NOT NULL,
  n_seeds UINTEGER NOT NULL,                 -- trainings that it is compared with shuffle over
  first_accuracy DOUBLE NOT NULL,            -- before the first step, mean over seeds
  final_accuracy DOUBLE NOT NULL,            -- after the last step, mean over seeds
  final_difference DOUBLE,                   -- from shuffle's final accuracy
  final_difference_low DOUBLE,               -- 95% interval, bootstrap over seeds
  final_difference_high DOUBLE,
  target DOUBLE,                             -- accuracy to be reached: the spec's, or what shuffle ends with
  steps_to_target DOUBLE,                    -- of the mean curve; the last step where it never gets there
  is_censored BOOLEAN,                       -- it never gets there
  n_censored UINTEGER,                       -- seeds that never do, each by itself
  step_ratio DOUBLE,                         -- steps_to_target over shuffle's; below 1 is faster
  step_ratio_low DOUBLE,                     -- 95% interval, bootstrap over seeds
  step_ratio_high DOUBLE,
  is_ratio_open BOOLEAN,                     -- the ratio is a lower bound
  mean_seconds DOUBLE NOT NULL,              -- of one training
  signal_seconds DOUBLE,                     -- of the steps that made the signals, on the machine that made them; 0 for shuffle
  time_ratio DOUBLE,                         -- seconds to the target with those of the signals, over shuffle's
  verdict VARCHAR NOT NULL,                  -- in words
  trial_id VARCHAR NOT NULL
);

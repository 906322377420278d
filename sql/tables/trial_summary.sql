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
  final_difference_low DOUBLE,               -- 95% interval, Student's t over seeds
  final_difference_high DOUBLE,
  target DOUBLE,                             -- accuracy to be reached: the spec's, or the end of shuffle's monotone mean curve
  steps_to_target DOUBLE,                    -- of the mean curve; the last step where it never gets there
  is_censored BOOLEAN,                       -- it never gets there
  n_censored UINTEGER,                       -- seeds that never do, each by itself
  step_ratio DOUBLE,                         -- steps_to_target over shuffle's; below 1 is faster
  step_ratio_low DOUBLE,                     -- 95% interval, bootstrap over seeds; 0: open below
  step_ratio_high DOUBLE,                    -- null beside a lower end: open above
  ratio_bound VARCHAR,                       -- what step_ratio is: exact, at_least (it never gets there), at_most (shuffle does not)
  mean_seconds DOUBLE NOT NULL,              -- of one training
  signal_seconds DOUBLE,                     -- of the steps that made what it is planned on, on the machine that made it; 0 for shuffle
  signal_gpu_seconds DOUBLE,                 -- of those among them that held a GPU
  time_ratio DOUBLE,                         -- seconds to the target with those of the signals, over shuffle's
  verdict VARCHAR NOT NULL,                  -- in words
  trial_id VARCHAR NOT NULL
);

-- One row per training run, step and prompt: what the training measured there; appended, never replaced.
-- key: dataset_version, run_name, step, prompt_id, file_digest
-- write: append
CREATE TABLE IF NOT EXISTS training_feedback (
  dataset_version VARCHAR NOT NULL,
  run_name VARCHAR NOT NULL,                 -- the training, by the name that its log has for it, else that of the log's file
  manifest_id VARCHAR,                       -- the manifest that it followed: the log's own, else the current one when the log came
  epoch UINTEGER,                            -- the manifest's, where the log says so
  step UBIGINT NOT NULL,                     -- optimizer step, from 0 over the whole export; 0 in a log without steps
  prompt_id VARCHAR NOT NULL,
  n_completions UINTEGER NOT NULL,           -- lines of the log for this prompt at this step
  reward DOUBLE,                             -- mean over its completions
  loss DOUBLE,                               -- mean over its lines
  pass_rate DOUBLE,                          -- share of correct completions
  file_digest VARCHAR NOT NULL,              -- SHA-256 of the log; one that came again having grown has another
  place VARCHAR NOT NULL,                    -- file and first line
  observed_at TIMESTAMP NOT NULL             -- UTC, when the log was taken up
);

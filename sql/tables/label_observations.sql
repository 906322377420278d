-- One row per observed value of a label; appended, never replaced.
-- key: dataset_version, label, observation_id
-- write: append
CREATE TABLE IF NOT EXISTS label_observations (
  dataset_version VARCHAR NOT NULL,
  label VARCHAR NOT NULL,                    -- name of the label in the spec
  observation_id VARCHAR NOT NULL,           -- hash of where the value came from, so that reading it twice adds nothing
  prompt_id VARCHAR NOT NULL,
  value DOUBLE NOT NULL,
  source VARCHAR NOT NULL,                   -- column, file, rollouts or feedback
  place VARCHAR NOT NULL,                    -- file and line that it was read from
  observed_at TIMESTAMP NOT NULL             -- UTC, when it was taken up
);

-- One row per prompt: its quality and whether it is kept.
-- key: dataset_version, prompt_id
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS quality_scores (
  dataset_version VARCHAR NOT NULL,
  prompt_id VARCHAR NOT NULL,
  quality DOUBLE,                            -- predicted probability of a correct outcome; null without a probe
  kept BOOLEAN NOT NULL,
  reason VARCHAR NOT NULL                    -- why it is kept or not
);

-- One row per prompt that an arm leaves out of an epoch, with the reason.
-- key: manifest_id, arm, epoch, prompt_id
-- write: replace manifest_id
CREATE TABLE IF NOT EXISTS deferred_prompts (
  manifest_id VARCHAR NOT NULL,
  dataset_version VARCHAR NOT NULL,
  arm VARCHAR NOT NULL,
  epoch UINTEGER NOT NULL,
  prompt_id VARCHAR NOT NULL,
  reason_code VARCHAR NOT NULL,              -- too_long, contaminated, near_duplicate, out_of_range, filtered, random_drop, tail or not_unlocked
  reason VARCHAR NOT NULL                    -- in words, with the evidence
);

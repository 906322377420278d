-- One row per manifest that was planned under [batches.feedback]: which epoch it is, what it unlocks, and why.
-- key: manifest_id
-- write: append
CREATE TABLE IF NOT EXISTS curriculum_steps (
  manifest_id VARCHAR NOT NULL,
  dataset_version VARCHAR NOT NULL,
  parent_manifest_id VARCHAR,                -- the manifest whose training was measured; null for the first
  epoch UINTEGER NOT NULL,
  rule VARCHAR NOT NULL,                     -- stages or target
  decision VARCHAR NOT NULL,                 -- started, unlocked, repeated or moved
  n_stages_unlocked UINTEGER,                -- rule stages
  target DOUBLE,                             -- rule target: rank among the prompts, 0 to 1
  measure VARCHAR NOT NULL,                  -- reward, loss or pass_rate
  measured DOUBLE,                           -- what it was in the parent's training; null for the first
  n_steps_measured UINTEGER NOT NULL,        -- steps that this is the mean of
  explanation VARCHAR NOT NULL               -- in words
);

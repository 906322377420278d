-- One row per prompt: what two controls are planned on in place of the SAE; none where the spec does not name them.
-- key: dataset_version, prompt_id
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS control_signals (
  dataset_version VARCHAR NOT NULL,
  prompt_id VARCHAR NOT NULL,
  dense_cluster_id UINTEGER,                 -- cluster by the dense hidden state; null without the control dense_state
  dense_difficulty DOUBLE,                   -- difficulty by the dense hidden state; null without dense_state
  true_difficulty DOUBLE                     -- the label, else the score in use; null without the control true_difficulty
);

-- One row per prompt: what is known of its difficulty.
-- key: dataset_version, prompt_id
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS difficulty_scores (
  dataset_version VARCHAR NOT NULL,
  prompt_id VARCHAR NOT NULL,
  n_active_features UINTEGER NOT NULL,       -- features active anywhere in the prompt
  n_active_per_token DOUBLE NOT NULL,        -- features active on a token, on average
  magnitude DOUBLE NOT NULL,                 -- their activation, summed over the tokens
  proxy DOUBLE,                              -- learned from labels, on the label's scale; null where none was learned
  difficulty DOUBLE NOT NULL,                -- the score in use; larger means harder
  score_name VARCHAR NOT NULL,               -- which one is in use: count, count_per_token, magnitude, proxy or label
  difficulty_rank DOUBLE NOT NULL            -- 0 for the easiest to 1 for the hardest prompt of the version
);

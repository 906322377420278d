-- One row per feature worth reading and prompt that it fires on most: the token at which it is strongest, in its sentence.
-- key: dataset_version, feature_id, place
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS feature_examples (
  dataset_version VARCHAR NOT NULL,
  feature_id UINTEGER NOT NULL,              -- those that set a cluster apart, and those active in most prompts
  place UINTEGER NOT NULL,                   -- 0 is the prompt in which it is strongest
  prompt_id VARCHAR NOT NULL,
  activation DOUBLE NOT NULL,                -- at that token, its largest in the prompt
  token_index UINTEGER NOT NULL,             -- the token's place in prompts.token_ids
  before VARCHAR NOT NULL,                   -- the text of up to 20 tokens before it
  token VARCHAR NOT NULL,                    -- the text of the token
  after VARCHAR NOT NULL                     -- the text of up to 20 tokens after it
);

-- One row per encoder and text: its sparse features. Shared by all versions with the same encoder.
-- key: encoder_id, text_id
-- write: append
CREATE TABLE IF NOT EXISTS prompt_features (
  encoder_id VARCHAR NOT NULL,
  text_id VARCHAR NOT NULL,
  n_tokens UINTEGER NOT NULL,                -- tokens pooled over, sinks left out
  n_sink_tokens UINTEGER NOT NULL,           -- tokens left out
  feature_ids UINTEGER[] NOT NULL,           -- latents active on at least one token, ascending
  max FLOAT[] NOT NULL,                      -- largest activation of each
  sum FLOAT[] NOT NULL,                      -- summed activation of each
  last FLOAT[] NOT NULL,                     -- activation of each on the last token that counts, 0 where not active there
  n_active USMALLINT[] NOT NULL,             -- tokens on which each is active
  argmax_token USMALLINT[] NOT NULL          -- index of the token of the largest activation, into prompts.token_ids
);

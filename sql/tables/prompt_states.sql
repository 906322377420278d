-- One row per reading and text: its dense hidden states. Shared by all versions with the same reading.
-- key: reading_id, text_id
-- write: append
CREATE TABLE IF NOT EXISTS prompt_states (
  reading_id VARCHAR NOT NULL,
  text_id VARCHAR NOT NULL,
  mean FLOAT[] NOT NULL,                     -- mean hidden state over the tokens, sinks left out
  last FLOAT[] NOT NULL                      -- hidden state of the last token
);

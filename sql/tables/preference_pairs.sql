-- One row per preference pair: two answers to a prompt, of which one was chosen over the other.
-- key: dataset_version, prompt_id, pair
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS preference_pairs (
  dataset_version VARCHAR NOT NULL,
  prompt_id VARCHAR NOT NULL,
  pair UINTEGER NOT NULL,                    -- number within the prompt, from 0, in the order of the source
  chosen VARCHAR NOT NULL,                   -- JSON list of the chat messages after the prompt; text is one by the assistant
  rejected VARCHAR NOT NULL,                 -- the same for the answer that was not chosen
  is_chat BOOLEAN NOT NULL,                  -- the source held chat messages, not text
  position UBIGINT NOT NULL                  -- row in the source, counted from 0; the first one of equal pairs
);

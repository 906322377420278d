-- One row per prompt of a dataset version, duplicates folded in.
-- key: dataset_version, prompt_id
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS prompts (
  dataset_version VARCHAR NOT NULL,
  prompt_id VARCHAR NOT NULL,                -- hash of the canonical messages and the response, 32 hex digits
  position UBIGINT NOT NULL,                 -- row in the source, counted from 0; the first one of duplicates
  messages VARCHAR NOT NULL,                 -- JSON list of chat messages; a plain string is one user message
  is_chat BOOLEAN NOT NULL,                  -- the source held chat messages, not a string
  text VARCHAR NOT NULL,                     -- what the reader reads, affixes stripped, before the template
  response VARCHAR,                          -- a response read together with the prompt
  answer VARCHAR,                            -- reference answer
  topic VARCHAR,                             -- topic or family
  split VARCHAR NOT NULL,                    -- train or evaluation
  text_id VARCHAR NOT NULL,                  -- hash of the token ids that are read, 32 hex digits
  token_ids UINTEGER[] NOT NULL,             -- the token ids that are read
  n_tokens UINTEGER NOT NULL,                -- their number
  n_prefix_tokens UINTEGER NOT NULL,         -- leading tokens that belong to the prompt when a response is read too
  extra VARCHAR NOT NULL,                    -- JSON object: further fields of the source row
  n_rows UINTEGER NOT NULL                   -- source rows that this prompt stands for
);

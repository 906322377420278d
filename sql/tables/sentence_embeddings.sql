-- One row per sentence encoder and text: its embedding. Shared by all versions that name the encoder.
-- key: model_id, text_digest
-- write: append
CREATE TABLE IF NOT EXISTS sentence_embeddings (
  model_id VARCHAR NOT NULL,                 -- hash of the encoder's files and of how it pools
  text_digest VARCHAR NOT NULL,              -- first 32 hex digits of SHA-256 over the text
  embedding FLOAT[] NOT NULL                 -- one vector for the whole text
);

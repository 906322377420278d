-- One row per layer of a version: the SAE that encodes it.
-- key: dataset_version, layer
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS sae_weights (
  dataset_version VARCHAR NOT NULL,
  layer UINTEGER NOT NULL,                   -- block after which the residual stream is read, counted from 0
  encoder_id VARCHAR NOT NULL,               -- hash of the reading and the SAE; keys prompt_features
  reading_id VARCHAR NOT NULL,               -- hash of reader, layer, template, scope and sink threshold; keys prompt_states
  feature_offset UINTEGER NOT NULL,          -- a version's feature id is this plus the latent's index
  n_latents UINTEGER NOT NULL,
  d_in UINTEGER NOT NULL,                    -- width of the activations
  architecture VARCHAR NOT NULL,             -- as sae_lens names it
  source VARCHAR NOT NULL,                   -- train, path:, saelens:, or parent:<version>
  digest VARCHAR NOT NULL,                   -- SHA-256 over the files of the SAE
  path VARCHAR NOT NULL,                     -- SAELens directory below the home
  reader_digest VARCHAR NOT NULL,            -- SHA-256 over the reader's files
  sink_threshold DOUBLE NOT NULL,            -- activation norm above which a token is an attention sink
  training VARCHAR NOT NULL                  -- JSON: tokens, seconds, last figures, history; {} where it was loaded
);

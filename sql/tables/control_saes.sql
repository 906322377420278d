-- One row per layer of a version: an SAE of random weights, the control for what training an SAE adds.
-- key: dataset_version, layer
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS control_saes (
  dataset_version VARCHAR NOT NULL,
  layer UINTEGER NOT NULL,
  encoder_id VARCHAR NOT NULL,               -- hash of the reading and the SAE; keys prompt_features
  feature_offset UINTEGER NOT NULL,          -- a control's feature id is this plus the latent's index
  n_latents UINTEGER NOT NULL,               -- as many as the SAE that it is a control for
  k UINTEGER NOT NULL,                       -- latents active on a token, as many as that one's on average
  digest VARCHAR NOT NULL,                   -- SHA-256 over its files
  path VARCHAR NOT NULL                      -- SAELens directory below the home
);

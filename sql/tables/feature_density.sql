-- One row per feature of a version, dead ones included.
-- key: dataset_version, feature_id
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS feature_density (
  dataset_version VARCHAR NOT NULL,
  feature_id UINTEGER NOT NULL,              -- feature_offset of the layer plus the latent's index
  layer UINTEGER NOT NULL,
  latent UINTEGER NOT NULL,                  -- index within the layer's SAE
  n_prompts UBIGINT NOT NULL,                -- prompts in which it is active
  n_tokens UBIGINT NOT NULL,                 -- tokens on which it is active
  mean_activation DOUBLE NOT NULL,           -- over the tokens on which it is active; 0 for a dead one
  max_activation DOUBLE NOT NULL,
  top_prompts VARCHAR[] NOT NULL             -- ids of up to five prompts that activate it most, strongest first
);

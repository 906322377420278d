-- One row per layer of a version: how well its SAE fits the version's own prompts.
-- key: dataset_version, layer
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS sae_health (
  dataset_version VARCHAR NOT NULL,
  layer UINTEGER NOT NULL,
  encoder_id VARCHAR NOT NULL,
  explained_variance DOUBLE NOT NULL,        -- 1 - residual variance / variance, on a sample of prompts not trained on
  l0 DOUBLE NOT NULL,                        -- mean number of active latents on a token
  dead_fraction DOUBLE NOT NULL,             -- share of the latents that fire on no prompt of the version
  n_tokens UBIGINT NOT NULL,                 -- tokens measured
  n_sink_tokens UBIGINT NOT NULL,            -- tokens left out as attention sinks
  verdict VARCHAR NOT NULL,                  -- good, poor or unfit
  explanation VARCHAR NOT NULL               -- the verdict in words
);

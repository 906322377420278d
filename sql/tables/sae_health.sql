-- One row per layer of a version: how well its SAE fits the version's own prompts.
-- key: dataset_version, layer
-- write: replace dataset_version
CREATE TABLE IF NOT EXISTS sae_health (
  dataset_version VARCHAR NOT NULL,
  layer UINTEGER NOT NULL,
  encoder_id VARCHAR NOT NULL,
  explained_variance DOUBLE NOT NULL,        -- 1 - residual variance / variance, on a sample of prompts not trained on
  l0 DOUBLE NOT NULL,                        -- mean number of active latents on a token of the sample
  expected_l0 DOUBLE,                        -- the SAE's own k, or the L0 that its makers report
  n_tokens UBIGINT NOT NULL,                 -- tokens of the sample
  n_sink_tokens UBIGINT NOT NULL,            -- tokens left out of it as attention sinks
  dead_fraction DOUBLE NOT NULL,             -- share of the latents that fire on none of n_tokens_encoded
  n_tokens_encoded UBIGINT NOT NULL,         -- the sample, and what the SAE was trained on where that is at hand
  layer_profile DOUBLE[] NOT NULL,           -- explained variance at every block of the model, from the first on
  loss_clean DOUBLE,                         -- next-token loss in nats of the model as it is
  loss_spliced DOUBLE,                       -- with the layer's activations replaced by the SAE's reconstruction
  loss_ablated DOUBLE,                       -- with them replaced by zeros
  loss_recovered DOUBLE,                     -- (ablated - spliced) / (ablated - clean): 1 where nothing is lost
  n_tokens_predicted UBIGINT NOT NULL,       -- tokens that the losses are means of
  verdict VARCHAR NOT NULL,                  -- good, poor or unfit
  explanation VARCHAR NOT NULL               -- the verdict in words
);

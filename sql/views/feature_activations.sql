-- One row per prompt and feature that is active in it.
CREATE OR REPLACE VIEW feature_activations AS
SELECT
  p.dataset_version, p.prompt_id, w.layer,
  unnest(f.feature_ids) + w.feature_offset AS feature_id,
  unnest(f."max") AS max_activation,
  unnest(f."sum") AS sum_activation,
  unnest(f."last") AS last_activation,
  unnest(f.n_active) AS n_active_tokens,
  unnest(f.argmax_token) AS argmax_token
FROM prompts p
JOIN sae_weights w ON w.dataset_version = p.dataset_version
JOIN prompt_features f ON f.encoder_id = w.encoder_id AND f.text_id = p.text_id;

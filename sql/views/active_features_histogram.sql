-- One row per version, layer and bin: how many features are active in how many prompts, in about twenty bins.
CREATE OR REPLACE VIEW active_features_histogram AS
WITH counts AS (
  SELECT p.dataset_version, w.layer, len(f.feature_ids) AS n_active
  FROM prompts p
  JOIN sae_weights w ON w.dataset_version = p.dataset_version
  JOIN prompt_features f ON f.encoder_id = w.encoder_id AND f.text_id = p.text_id
), binned AS (
  SELECT *, greatest(1, ceil((max(n_active) OVER of_layer + 1) / 20))::BIGINT AS bin_width
  FROM counts
  WINDOW of_layer AS (PARTITION BY dataset_version, layer)
)
SELECT
  dataset_version,
  layer,
  (n_active // bin_width) * bin_width AS at_least,
  (n_active // bin_width + 1) * bin_width - 1 AS at_most,
  count(*) AS n_prompts,
  count(*) / sum(count(*)) OVER (PARTITION BY dataset_version, layer) AS prompt_fraction
FROM binned
GROUP BY dataset_version, layer, n_active // bin_width, bin_width
ORDER BY dataset_version, layer, at_least;

-- One row per version, training run and measure: Spearman's rank correlation of difficulty with what was measured, ties at their mean rank.
CREATE OR REPLACE VIEW difficulty_feedback_correlation AS
WITH measured AS (
  FROM difficulty_feedback
  UNPIVOT (value FOR measure IN (reward, loss, pass_rate))
),
ranked AS (
  SELECT
    dataset_version, run_name, measure,
    rank() OVER by_difficulty + (count(*) OVER same_difficulty - 1) / 2.0 AS difficulty_place,
    rank() OVER by_value + (count(*) OVER same_value - 1) / 2.0 AS value_place
  FROM measured
  WHERE difficulty IS NOT NULL
  WINDOW
    by_difficulty AS (PARTITION BY dataset_version, run_name, measure ORDER BY difficulty),
    same_difficulty AS (PARTITION BY dataset_version, run_name, measure, difficulty),
    by_value AS (PARTITION BY dataset_version, run_name, measure ORDER BY value),
    same_value AS (PARTITION BY dataset_version, run_name, measure, value)
)
SELECT
  dataset_version, run_name, measure,
  count(*) AS n_prompts,
  CASE WHEN count(*) >= 3 AND min(difficulty_place) < max(difficulty_place) AND min(value_place) < max(value_place)
    THEN corr(difficulty_place, value_place) END AS spearman
FROM ranked
GROUP BY dataset_version, run_name, measure;

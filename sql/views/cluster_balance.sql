-- One row per version: how large its clusters are and how evenly its prompts are spread over them.
CREATE OR REPLACE VIEW cluster_balance AS
SELECT
  c.dataset_version,
  v.registered_at,
  count(*) AS n_clusters,
  min(c.n_prompts) AS smallest,
  median(c.n_prompts) AS median_size,
  max(c.n_prompts) AS largest,
  max(c.prompt_fraction) AS largest_fraction,
  -- entropy of the shares over that of equal ones: 1 is even, near 0 one cluster has nearly all
  CASE WHEN count(*) > 1
    THEN -sum(CASE WHEN c.prompt_fraction > 0 THEN c.prompt_fraction * ln(c.prompt_fraction) ELSE 0 END) / ln(count(*))
  END AS balance,
  any_value(q.stability) AS stability,
  any_value(q.silhouette) AS silhouette
FROM clusters c
JOIN versions v USING (dataset_version)
LEFT JOIN (
  SELECT
    dataset_version,
    max("value") FILTER (measure = 'stability') AS stability,
    max("value") FILTER (measure = 'silhouette') AS silhouette
  FROM cluster_quality
  GROUP BY dataset_version
) q USING (dataset_version)
GROUP BY c.dataset_version, v.registered_at
ORDER BY v.registered_at, c.dataset_version;

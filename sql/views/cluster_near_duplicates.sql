-- One row per cluster: how many of its prompts nearly repeat another one, and what folding would leave of it.
CREATE OR REPLACE VIEW cluster_near_duplicates AS
SELECT
  a.dataset_version, a.cluster_id,
  count(*) AS n_prompts,
  count(n.prompt_id) AS n_near_duplicates,
  count(DISTINCT n.group_id) AS n_groups,
  count(*) FILTER (n.role = 'copy') AS n_copies,
  count(*) - count(*) FILTER (n.role = 'copy') AS n_prompts_folded
FROM cluster_assignments a
LEFT JOIN near_duplicates n USING (dataset_version, prompt_id)
GROUP BY a.dataset_version, a.cluster_id;
